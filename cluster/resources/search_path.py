"""Search path of Ray's workers: they import this project's packages from where the driver imports them."""

from pathlib import Path

from ray.job_config import JobConfig

_ROOT = Path(__file__).absolute().parents[2]


class _DriverCodeFirst(JobConfig):
    """Settings of a Ray job whose workers look for packages in the driver's own folder first.

    Ray puts the driver's current folder at the front of the workers' search path. A folder of data there, or a module
    of the user, with the name of one of this project's packages would hide the package on the workers.
    """

    def _serialize(self) -> str:
        # A worker puts each folder in front of those before it, so the last one is searched first.
        self._py_driver_sys_path.append(f"{_ROOT}")
        return super()._serialize()


def driver_code_first() -> JobConfig:
    """Return the settings of a Ray job whose workers import this project's packages from the driver's folder."""
    return _DriverCodeFirst()
