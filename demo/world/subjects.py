"""Draw the subjects, one function for each kind: in a pen's box, looking to the right."""

from __future__ import annotations

from collections.abc import Callable

from demo.world.pen import CREAM, INK, WOOD, Pen

ROSE = (250, 178, 190)
BEAK = (255, 168, 40)
GLASS = (198, 230, 246)
LAMP = (255, 226, 120)


def cat(pen: Pen) -> None:
    """A sitting cat with whiskers."""
    pen.line([(-0.2, 0.38), (-0.4, 0.34), (-0.45, 0.14), (-0.36, 0.06)], 0.085, pen.dark)
    pen.ellipse(0, 0.22, 0.26, 0.28, pen.body)
    pen.ellipse(0, 0.26, 0.14, 0.17, pen.light)
    pen.ellipse(-0.13, 0.45, 0.11, 0.06, pen.light)
    pen.ellipse(0.13, 0.45, 0.11, 0.06, pen.light)
    for side in (-1, 1):
        pen.poly([(side * 0.28, -0.16), (side * 0.25, -0.5), (side * 0.05, -0.34)], pen.body)
        pen.poly([(side * 0.235, -0.27), (side * 0.225, -0.42), (side * 0.12, -0.34)], ROSE)
    pen.ellipse(0, -0.16, 0.29, 0.22, pen.body)
    for side in (-1, 1):
        pen.ellipse(side * 0.12, -0.18, 0.065, 0.075, CREAM)
        pen.ellipse(side * 0.12, -0.17, 0.03, 0.06, INK)
        pen.line([(side * 0.09, -0.06), (side * 0.34, -0.1)], 0.012, CREAM)
        pen.line([(side * 0.09, -0.04), (side * 0.33, -0.02)], 0.012, CREAM)
    pen.poly([(-0.035, -0.09), (0.035, -0.09), (0, -0.045)], ROSE)


def horse(pen: Pen) -> None:
    """A standing horse with a dark mane."""
    pen.line([(-0.34, -0.05), (-0.45, 0.06), (-0.43, 0.26)], 0.09, pen.dark)
    for x in (-0.25, -0.12, 0.1, 0.22):
        pen.box(x - 0.045, 0.1, x + 0.045, 0.42, pen.body if x in (-0.25, 0.22) else pen.dark)
        pen.box(x - 0.05, 0.41, x + 0.05, 0.49, INK)
    pen.ellipse(-0.02, 0.04, 0.35, 0.17, pen.body)
    pen.poly([(0.1, 0.02), (0.18, -0.36), (0.32, -0.36), (0.33, 0.06)], pen.body)
    pen.poly([(0.04, -0.02), (0.13, -0.4), (0.22, -0.43), (0.2, -0.28), (0.14, 0.0)], pen.dark)
    pen.poly([(0.19, -0.36), (0.22, -0.5), (0.29, -0.38)], pen.body)
    pen.poly([(0.18, -0.38), (0.31, -0.4), (0.48, -0.22), (0.43, -0.13), (0.24, -0.18)], pen.body)
    pen.ellipse(0.43, -0.18, 0.06, 0.055, pen.light)
    pen.eye(0.29, -0.3, 0.04)


def bird(pen: Pen) -> None:
    """A flying bird with a raised wing."""
    pen.poly([(-0.22, 0.1), (-0.48, 0.02), (-0.44, 0.22), (-0.24, 0.2)], pen.dark)
    pen.ellipse(-0.02, 0.14, 0.28, 0.17, pen.body)
    pen.ellipse(0.0, 0.2, 0.17, 0.09, pen.light)
    pen.poly([(0.36, -0.06), (0.5, 0.02), (0.35, 0.08)], BEAK)
    pen.ellipse(0.23, 0.0, 0.155, 0.15, pen.body)
    pen.poly(
        [(0.1, 0.12), (-0.2, 0.14), (-0.36, -0.36), (-0.2, -0.34), (-0.14, -0.44), (0.0, -0.3)], pen.dark
    )
    pen.eye(0.26, -0.03, 0.045)


def fish(pen: Pen) -> None:
    """A fish with fins and stripes."""
    pen.poly([(-0.2, 0.0), (-0.48, -0.22), (-0.4, 0.0), (-0.48, 0.22)], pen.dark)
    pen.poly([(-0.16, -0.16), (0.02, -0.36), (0.2, -0.14)], pen.dark)
    pen.poly([(-0.08, 0.16), (-0.1, 0.32), (0.1, 0.18)], pen.dark)
    pen.ellipse(0.08, 0.0, 0.37, 0.23, pen.body)
    for x, reach in ((-0.12, 0.15), (0.02, 0.19)):
        pen.line([(x, -reach), (x + 0.05, 0), (x, reach)], 0.05, pen.light)
    pen.eye(0.27, -0.06, 0.055)
    pen.line([(0.34, 0.09), (0.42, 0.07)], 0.02, INK)


def butterfly(pen: Pen) -> None:
    """A butterfly with spotted wings."""
    for side in (-1, 1):
        pen.ellipse(side * 0.25, -0.16, 0.22, 0.24, pen.body)
        pen.ellipse(side * 0.2, 0.22, 0.17, 0.18, pen.body)
        pen.ellipse(side * 0.28, -0.18, 0.11, 0.12, pen.light)
        pen.ellipse(side * 0.22, 0.24, 0.08, 0.085, pen.dark)
        pen.line([(side * 0.02, -0.26), (side * 0.1, -0.46)], 0.02, INK)
        pen.ellipse(side * 0.1, -0.46, 0.025, 0.025, INK)
    pen.ellipse(0, 0.02, 0.05, 0.32, (74, 56, 60))
    pen.ellipse(0, -0.26, 0.065, 0.065, (74, 56, 60))


def flower(pen: Pen) -> None:
    """A flower with five petals and two leaves."""
    stem = (40, 130, 60)
    pen.line([(0, -0.1), (0, 0.5)], 0.05, stem)
    pen.ellipse(-0.13, 0.3, 0.13, 0.06, stem)
    pen.ellipse(0.13, 0.36, 0.13, 0.06, stem)
    for x, y in ((0, -0.36), (0.2, -0.21), (0.125, 0.03), (-0.125, 0.03), (-0.2, -0.21)):
        pen.ellipse(x, y, 0.135, 0.135, pen.body)
    for x, y in ((0, -0.31), (0.15, -0.19), (0.09, -0.02), (-0.09, -0.02), (-0.15, -0.19)):
        pen.ellipse(x, y, 0.05, 0.05, pen.light)
    pen.ellipse(0, -0.15, 0.11, 0.11, (255, 214, 70))


def tree(pen: Pen) -> None:
    """A round tree, whose crown has the colour."""
    pen.poly([(-0.07, 0.0), (0.07, 0.0), (0.11, 0.5), (-0.11, 0.5)], (116, 74, 42))
    for x, y, r in ((-0.22, 0.0, 0.2), (0.22, 0.0, 0.2), (0, 0.04, 0.2)):
        pen.ellipse(x, y, r, r * 0.95, pen.dark)
    for x, y, r in ((-0.16, -0.14, 0.21), (0.17, -0.13, 0.21), (0, -0.27, 0.23), (0, -0.07, 0.21)):
        pen.ellipse(x, y, r, r, pen.body)
    for x, y in ((-0.1, -0.32), (0.08, -0.2), (-0.2, -0.1), (0.23, -0.06)):
        pen.ellipse(x, y, 0.042, 0.042, pen.light)


def mushroom(pen: Pen) -> None:
    """A toadstool with dots and a face."""
    pen.poly([(-0.13, 0.0), (0.13, 0.0), (0.18, 0.46), (0.1, 0.5), (-0.1, 0.5), (-0.18, 0.46)], CREAM)
    pen.dome(0, 0.08, 0.46, 0.54, pen.body)
    pen.ellipse(0, 0.08, 0.46, 0.06, pen.dark)
    for x, y, r in ((-0.02, -0.28, 0.09), (-0.25, -0.1, 0.07), (0.24, -0.12, 0.08), (0.03, -0.06, 0.05)):
        pen.ellipse(x, y, r, r * 0.9, pen.light)
    for side in (-1, 1):
        pen.ellipse(side * 0.06, 0.26, 0.022, 0.034, INK)


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


SUBJECTS: dict[str, Callable[[Pen], None]] = {
    drawn.__name__: drawn
    for drawn in (
        *(boat, house, tree, car, cat, horse, flower, umbrella),
        *(mushroom, fish, balloon, bird, butterfly, kite),
    )
}
"""By the kinds of `demo.world.scene`"""
