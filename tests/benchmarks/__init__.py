"""Benchmarks: this project beside what a user would pick instead, measured in the same run.

A benchmark is a module of this package with a constant ``BENCHMARK``; the module's name is the benchmark's. Nothing
else registers it: the command below, the tests and the README file find it by that constant::

    def measure(*, num_images: int = 363) -> Iterator[Row]:
        '''Resize photographs. (An argument is an option of the command line: --num-images 100.)'''
        seconds = interleaved({"ours": ours, "Pillow": pillow, "decoding alone": decode}, rounds=5)
        yield Row.of_seconds("resize a photograph, 640 to 256 px", seconds, unit="images/s", count=num_images)

    BENCHMARK = Benchmark(measure, small={"num_images": 4})  # the test measures it so, in seconds

``measuring.py`` has ``Row``, ``Benchmark``, ``interleaved``, and ``UnavailableError`` for what this machine lacks.
Run all, some, or one with its options; each prints its table, and replaces its own rows in ``results.json``, from which
``README.md`` and the main README's table of the best-known rows are made again::

    python -m tests.benchmarks
    python -m tests.benchmarks overheads verification
    python -m tests.benchmarks overheads --steps 150
"""
