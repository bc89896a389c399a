"""One catalogue in Dagster: its recipe, its warehouse, how its jobs run. Several live in one instance, told apart by a prefix."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg

from sidlake.errors import NotFoundError, RecipeError
from sidlake.memory import parse_size
from sidlake.warehouse.places.location import absolute, default_warehouse

__all__ = ["Settings", "dagster_home", "settings_from"]

_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A catalogue; what `settings_from` reads of the environment has the field's name, such as SIDLAKE_WAREHOUSE.

    Attributes:
        warehouse: folder or s3 address; relative paths start at the working directory, as in the command line.
        prefix: of every asset key, job, schedule, sensor and resource of the catalogue; none where there is one catalogue.
        executor: ``in_process`` runs a job in one process, which loads each model once; ``multiprocess`` gives each step its own,
            so that a step alone holds a GPU.
        engine: ``local``, or ``beam`` for Beam's FnApiRunner.
        memory: what a run may take of the machine's memory, such as 4GiB; the recipe's or half of the machine's if empty.
        refresh_cron: when the daily job runs, in UTC; `retrain_cron` likewise for the weekly one, `maintain_cron` for upkeep.
        schedules: ``on`` starts schedules and the sensors with the daemon. They are off unless asked for: opening the UI on a
            laptop must not make it retrain at three in the morning. A toggle in the UI wins over this default.
    """

    warehouse: str = field(default_factory=lambda: str(default_warehouse()))
    recipe: str = "recipes/online_retail.toml"
    prefix: str = ""
    engine: str = "local"
    executor: str = "in_process"
    memory: str = ""
    schedules: str = "off"
    refresh_cron: str = "0 5 * * *"
    retrain_cron: str = "0 3 * * SUN"
    maintain_cron: str = "0 7 * * SUN"

    def __post_init__(self) -> None:
        allowed = {"schedules": ("on", "off"), "engine": ("local", "beam"), "executor": ("in_process", "multiprocess")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                msg = f"SIDLAKE_{name.upper()} must be {' or '.join(values)}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        if self.memory:
            parse_size(self.memory)
        if not _PREFIX.fullmatch(self.prefix):
            msg = f"the prefix of a catalogue must be letters, digits and _, and not begin with a digit, got {self.prefix!r}"
            raise RecipeError(msg, prefix=self.prefix)

    @property
    def resource(self) -> str:
        """The key of the catalogue's `SidlakeResource`."""
        return self.named("sidlake")

    @property
    def address(self) -> str:
        """The warehouse's address, the same from every working directory."""
        return absolute(self.warehouse)

    @property
    def tag(self) -> str:
        """The address as a tag's value: its last 63 letters, digits and ``.-_``."""
        return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in self.address)[-63:].strip("._-")

    def named(self, name: str) -> str:
        """Return the catalogue's name for a job, a schedule, a group or a step.

        >>> Settings(prefix="shoes").named("refresh")
        'shoes_refresh'
        """
        return f"{self.prefix}_{name}" if self.prefix else name

    def key(self, *names: str) -> dg.AssetKey:
        """Return the key of an asset of the catalogue."""
        return dg.AssetKey([*([self.prefix] if self.prefix else []), *names])

    def starts(self) -> bool:
        """Return whether schedules and sensors run as soon as the daemon does."""
        return self.schedules == "on"


def settings_from(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that `environment` gives; relative paths start at the working directory.

    >>> settings_from({"SIDLAKE_WAREHOUSE": "/srv/shop"}).warehouse
    '/srv/shop'
    """
    names = {name: f"SIDLAKE_{name.upper()}" for name in Settings.__dataclass_fields__}
    return replace(Settings(), **{name: environment[key] for name, key in names.items() if environment.get(key)})


def dagster_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of Dagster's instance: DAGSTER_HOME, or ``dagster_home`` in the working directory.

    Raises `NotFoundError` where it has no dagster.yaml: Dagster would go on with its defaults, telemetry among them.
    """
    home = Path(environment.get("DAGSTER_HOME") or "dagster_home").absolute()
    if not (home / "dagster.yaml").is_file():
        msg = f"no dagster.yaml in {home}; run from the repository's root, or set DAGSTER_HOME to the absolute path of dagster_home"
        raise NotFoundError(msg, path=str(home))
    return home
