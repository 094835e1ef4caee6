"""One thin module a job: parse, call one function, report."""
