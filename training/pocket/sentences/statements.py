"""The claims of a caption apart from any language, and whether they hold for a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from demo.world.scene import Group, Scene

MANY = 0


@dataclass(frozen=True)
class Mention:
    """A group as a caption names it. `count` is 1 to 3, `MANY` ("cats": 2 or 3) or None ("cat": any)."""

    kind: str
    colour: str | None
    count: int | None

    def fits(self, group: Group) -> bool:
        """Return whether the mention is true of `group`."""
        if self.kind != group.kind or self.colour not in (None, group.colour):
            return False
        return group.count > 1 if self.count == MANY else self.count in (None, group.count)


@dataclass(frozen=True)
class Statement:
    """Claimed facts, where None and missing groups claim nothing unless `complete` is set.

    Two mentions without a relation may stand in either order.
    """

    place: str | None = None
    weather: str | None = None
    mentions: tuple[Mention, ...] = ()
    relation: str | None = None
    complete: bool = False

    def holds(self, scene: Scene) -> bool:
        """Return whether every claim is true of `scene`."""
        if self.place not in (None, scene.place) or self.weather not in (None, scene.weather):
            return False
        if self.complete and len(self.mentions) != len(scene.groups):
            return False
        if self.relation is not None:
            return self.relation == scene.relation and _in_order(self.mentions, scene.groups)
        if len(self.mentions) == 2:
            return _in_order(self.mentions, scene.groups) or _in_order(self.mentions[::-1], scene.groups)
        return all(any(mention.fits(group) for group in scene.groups) for mention in self.mentions)


def _in_order(mentions: tuple[Mention, ...], groups: tuple[Group, ...]) -> bool:
    pairs = zip(mentions, groups, strict=False)
    return len(mentions) <= len(groups) and all(mention.fits(group) for mention, group in pairs)


def full(scene: Scene) -> Statement:
    """Return the statement that claims every fact of `scene`."""
    mentions = tuple(Mention(group.kind, group.colour, group.count) for group in scene.groups)
    return Statement(scene.place, scene.weather, mentions, scene.relation, complete=True)


def _loose(mention: Mention, rng: Random) -> Mention:
    """Leave out the colour or the exact count now and then, as people do who type a query."""
    if rng.random() < 0.22:
        mention = replace(mention, colour=None)
    if rng.random() < 0.3:
        mention = replace(mention, count=None if mention.count == 1 or rng.random() < 0.3 else MANY)
    return mention


def partial(scene: Scene, rng: Random) -> Statement:
    """Return a statement that claims some facts of `scene`, like a short query.

    Of a scene with two groups it never claims one group, the place and the weather at once: that would be
    the full statement of a scene with one group.
    """
    everything = full(scene)
    mentions = tuple(_loose(mention, rng) for mention in everything.mentions)
    if rng.random() < 0.1:
        mentions = ()
    relation = everything.relation if len(mentions) == 2 else None
    if len(mentions) == 2:
        choice = rng.random()
        if choice < 0.45:
            mentions, relation = (rng.choice(mentions),), None
        elif choice < 0.65:
            mentions, relation = tuple(rng.sample(mentions, 2)), None
    setting = [(None, None), (scene.place, None), (None, scene.weather)]
    if not mentions:
        setting = [(scene.place, scene.weather), (scene.place, None), (None, scene.weather)]
    place, weather = rng.choice(setting)
    return Statement(place, weather, mentions, relation)
