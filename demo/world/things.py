"""How the made subjects look: each function draws one in a pen's box."""

from __future__ import annotations

from demo.world.pen import CREAM, INK, WOOD, Pen

GLASS = (198, 230, 246)
LAMP = (255, 226, 120)


def boat(pen: Pen) -> None:
    """A sailing boat: hull and sails have the colour."""
    pen.line([(0.02, -0.5), (0.02, 0.2)], 0.04, WOOD)
    pen.poly([(-0.03, -0.44), (-0.03, 0.12), (-0.4, 0.12)], pen.light)
    pen.poly([(0.07, -0.36), (0.07, 0.12), (0.36, 0.12)], pen.body)
    pen.poly([(-0.47, 0.2), (0.47, 0.2), (0.34, 0.44), (-0.34, 0.44)], pen.body)
    pen.box(-0.48, 0.17, 0.48, 0.24, CREAM)


def house(pen: Pen) -> None:
    """A small house: walls have the colour."""
    pen.box(0.2, -0.44, 0.31, -0.15, pen.dark)
    pen.box(-0.35, -0.06, 0.35, 0.5, pen.body)
    pen.poly([(-0.48, -0.04), (0, -0.48), (0.48, -0.04)], (122, 86, 78))
    for x in (-0.2, 0.2):
        pen.box(x - 0.085, 0.06, x + 0.085, 0.23, LAMP)
        pen.line([(x, 0.06), (x, 0.23)], 0.022, CREAM)
        pen.line([(x - 0.085, 0.145), (x + 0.085, 0.145)], 0.022, CREAM)
    pen.box(-0.075, 0.22, 0.075, 0.5, (104, 62, 38))
    pen.ellipse(0.045, 0.37, 0.016, 0.016, LAMP)


def car(pen: Pen) -> None:
    """A car from the side."""
    pen.poly([(-0.26, 0.1), (-0.17, -0.16), (0.14, -0.16), (0.27, 0.1)], pen.body)
    pen.poly([(-0.2, 0.08), (-0.135, -0.1), (-0.03, -0.1), (-0.03, 0.08)], GLASS)
    pen.poly([(0.02, 0.08), (0.02, -0.1), (0.11, -0.1), (0.2, 0.08)], GLASS)
    pen.poly(
        [(-0.48, 0.14), (-0.42, 0.07), (0.38, 0.07), (0.48, 0.16), (0.48, 0.36), (-0.48, 0.36)], pen.body
    )
    pen.box(-0.48, 0.27, 0.48, 0.32, pen.dark)
    for x in (-0.27, 0.27):
        pen.ellipse(x, 0.36, 0.125, 0.125, INK)
        pen.ellipse(x, 0.36, 0.055, 0.055, (200, 204, 212))
    pen.ellipse(0.44, 0.19, 0.04, 0.045, LAMP)


def umbrella(pen: Pen) -> None:
    """An open umbrella."""
    pen.line([(0, -0.46), (0, 0.38), (0.05, 0.46), (0.13, 0.46), (0.16, 0.36)], 0.045, WOOD)
    pen.dome(0, 0.06, 0.47, 0.46, pen.body)
    pen.dome(0, 0.06, 0.19, 0.455, pen.light)
    for x in (-0.36, -0.12, 0.12, 0.36):
        pen.ellipse(x, 0.06, 0.11, 0.05, pen.dark)


def balloon(pen: Pen) -> None:
    """A hot-air balloon with its basket."""
    for side in (-1, 1):
        pen.line([(side * 0.17, 0.1), (side * 0.07, 0.36)], 0.016, WOOD)
    pen.poly([(-0.3, 0.0), (0.3, 0.0), (0.1, 0.24), (-0.1, 0.24)], pen.body)
    pen.ellipse(0, -0.16, 0.35, 0.335, pen.body)
    pen.ellipse(0, -0.16, 0.22, 0.335, pen.light)
    pen.ellipse(0, -0.16, 0.09, 0.335, pen.body)
    pen.box(-0.1, 0.18, 0.1, 0.24, pen.dark)
    pen.box(-0.09, 0.35, 0.09, 0.5, WOOD)


def kite(pen: Pen) -> None:
    """A kite with a tail of bows."""
    pen.line([(0.08, 0.16), (-0.08, 0.26), (0.06, 0.36), (-0.06, 0.49)], 0.022, CREAM)
    pen.poly([(0.08, -0.5), (0.36, -0.18), (0.08, 0.18), (-0.2, -0.18)], pen.body)
    pen.poly([(0.08, -0.5), (0.08, -0.18), (-0.2, -0.18)], pen.light)
    pen.poly([(0.08, 0.18), (0.08, -0.18), (0.36, -0.18)], pen.dark)
    for x, y in ((-0.06, 0.26), (0.05, 0.36), (-0.05, 0.47)):
        pen.poly(
            [(x - 0.09, y - 0.05), (x + 0.09, y + 0.05), (x + 0.09, y - 0.05), (x - 0.09, y + 0.05)], pen.body
        )
