"""Parameters of a request to a served model: settings of the search for captions, with limits of their own.

Imports no torch.
"""

from collections.abc import Mapping

from captioning.generation.config import GenerationConfig

BEAM_SIZES, CAPTION_LENGTHS = range(1, 21), range(1, 101)
"""Beam sizes, also numbers of sampled captions, and largest numbers of words per caption that a request may ask for."""
_FIELDS = {
    "beam": "beam_size",
    "length_power": "length_power",
    "min_words": "min_words",
    "no_repeat_ngram": "no_repeat_ngram",
    "groups": "groups",
    "group_penalty": "group_penalty",
    "temperature": "temperature",
    "top_p": "top_p",
    "sampling_seed": "sampling_seed",
}  # the setting of each parameter; num_samples follows from num_captions


def check_served(config: GenerationConfig) -> None:
    """Check that a version may have these settings as its defaults.

    Raises:
        ValueError: a request could not ask for as many beams or samples.
    """
    for what, number in (("beam size", config.beam_size), ("number of samples", config.num_samples)):
        if number not in BEAM_SIZES:
            raise ValueError(f"{what} {number} is out of range; use {BEAM_SIZES.start} to {BEAM_SIZES.stop - 1}")


def default_parameters(config: GenerationConfig, max_words: int) -> dict[str, int | float]:
    """Return the parameters of a request that names none.

    Args:
        config: settings of the version.
        max_words: largest number of words of a caption in training.
    """
    length = min(max_words, CAPTION_LENGTHS.stop - 1)
    settings = {parameter: getattr(config, field) for parameter, field in _FIELDS.items()}
    return settings | {"max_length": length, "num_captions": 1}


def requested_settings(params: Mapping[str, int | float], config: GenerationConfig) -> GenerationConfig:
    """Return the settings of a request; one that turns a search into sampling, or back, names only what it wants.

    Args:
        params: parameters of the request, with the version's defaults for those that it does not name.
        config: settings of the version.

    Raises:
        ValueError: a parameter is out of range, or does not fit the others.
    """
    _require("beam", params["beam"], BEAM_SIZES)
    _require("max_length", params["max_length"], CAPTION_LENGTHS)
    try:
        found = config.changed(**{field: params[parameter] for parameter, field in _FIELDS.items()})
        found.check_words(int(params["max_length"]))
    except ValueError as error:
        raise ValueError("; ".join(f"{error}".replace("beam_size", "beam").splitlines())) from None
    num_captions = int(params["num_captions"])
    if found.is_sampling:
        _require("num_captions", num_captions, BEAM_SIZES)
        return found.changed(num_samples=max(found.num_samples, num_captions))
    _require("num_captions", num_captions, range(1, found.beam_size + 1), ", at most the beam")
    return found


def _require(name: str, value: float, allowed: range, why: str = "") -> None:
    if value not in allowed:
        raise ValueError(f"{name} cannot be {value}; use {allowed.start} to {allowed.stop - 1}{why}")
