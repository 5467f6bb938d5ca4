"""Which model a request chooses, among the deployed families and the operator's aliases (pure)."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from triptych.router.api.aliases import Aliases
from triptych.router.errors import ModelNotFound
from triptych.router.pool.served import Served
from triptych.workers.shared.families import BY_NAME, FAMILIES, Family


class Choice(NamedTuple):
    """A model that is served, and what its name in the request says besides.

    `model` is the name in the reply. `task` and `dimensions` are for requests without them; `tasks` are
    further names of tasks.
    """

    served: Served
    model: str
    task: str | None = None
    tasks: Mapping[str, str] = {}
    dimensions: int | None = None

    @property
    def family(self) -> Family:
        return self.served.family


class Catalog:
    """The models that requests may name. While no pool is known, every family counts as deployed."""

    def __init__(self, served: Mapping[Family, Served], aliases: Aliases) -> None:
        self._served = served or {family: Served(family) for family in FAMILIES}
        self._aliases = aliases

    def find(self, model: str) -> Choice:
        """A model by any of its names. A deployed family goes before an alias. Raises `ModelNotFound`."""
        choice = self._find(model)
        if choice is None:
            raise self._not_found(model, self._served)
        return choice

    def embedding(self, model: str | None) -> Choice:
        """The model of a request for vectors, by default the first one. Raises `ModelNotFound`."""
        fit = [family for family in self._served if family.tasks]
        choice = self._default(fit) if model is None else self._find(model)
        if choice is None or not choice.family.tasks:
            raise self._not_found(model, fit)
        return choice

    def ranking(self, model: str | None) -> Choice:
        """The model of a ranking, by default a cross-encoder if there is one. Raises `ModelNotFound`."""
        fit = [family for family in self._served if family.rerank is not None]
        fit.sort(key=lambda family: not family.cross_encoder)
        choice = self._default(fit) if model is None else self._find(model)
        if choice is None and model is not None and model not in BY_NAME:
            unnamed = next((family for family in fit if family.any_name), None)
            choice = Choice(self._served[unnamed], model) if unnamed else None
        if choice is None or choice.family.rerank is None:
            raise self._not_found(model, fit)
        return choice

    def _default(self, fit: Sequence[Family]) -> Choice | None:
        return Choice(self._served[fit[0]], fit[0].name) if fit else None

    def _find(self, model: str) -> Choice | None:
        name, _, task = model.partition(":")
        served = self._deployed(name)
        if served is not None and (model == name or task in served.family.tasks):
            return Choice(served, served.family.name, task or None)
        alias = self._aliases.get(model)
        if alias is None or (served := self._deployed(alias.model)) is None:
            return None
        return Choice(served, served.family.name, alias.task, alias.tasks, alias.dimensions)

    def _deployed(self, name: str) -> Served | None:
        family = BY_NAME.get(name)
        return None if family is None else self._served.get(family)

    def _not_found(self, model: str | None, fit: Collection[Family]) -> ModelNotFound:
        asked = "no model that can do this" if model is None else f"no model {model[:100]!r}"
        aliases = [name for name, alias in self._aliases.items() if BY_NAME[alias.model] in fit]
        names = [name for family in fit for name in family.names] + aliases
        others = f"; the models are {', '.join(names)}" if names else ""
        tasks = "; their own names also take a suffix :<task>" if any(family.tasks for family in fit) else ""
        return ModelNotFound(f"{asked} is deployed here{others}{tasks}")
