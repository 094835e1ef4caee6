from pathlib import Path

import cluster
from cluster.resources.search_path import driver_code_first


def test_the_folder_of_the_packages_comes_after_what_ray_has_added():
    settings = driver_code_first()
    settings._py_driver_sys_path.append("/current/folder")  # as ray.init does
    settings._serialize()
    assert settings._py_driver_sys_path == ["/current/folder", str(Path(cluster.__file__).parents[1])]
