from dataclasses import dataclass, field

import tyro

from jobs.cli import JOBS, find_job
from jobs.console.job import Job
from tests.support.case_table import each_case


@dataclass(frozen=True, kw_only=True)
class Settings:
    source: str
    count: int = 3
    names: list[str] = field(default_factory=list)


def test_what_has_no_default_must_be_given():
    default = Job(name="any", settings=Settings, run=print, description=None).default()
    assert (default.source is tyro.MISSING, default.count, default.names) == (True, 3, [])


def test_the_preset_called_default_is_the_default():
    presets = {"default": ("as ever", Settings(source="here")), "other": ("else", Settings(source="there"))}
    assert Job(name="any", settings=Settings, run=print, description=None, presets=presets).default().source == "here"


@each_case("name", JOBS)
def test_every_job_is_declared_under_its_own_name(name):
    job = find_job(name)
    assert (job.name, isinstance(job.default(), job.settings)) == (name, True)
