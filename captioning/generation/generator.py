"""Generation of captions by the settings: beam search, diverse beam search or sampling.

Shapes: B images, K captions of each, T words.
"""

import torch
from torch import Tensor

from captioning.data.vocabulary import PAD
from captioning.generation.beam_search import Captions, beam_search, rank
from captioning.generation.config import GenerationConfig
from captioning.generation.constraints import Constraints
from captioning.generation.diverse_beam import diverse_beam_search
from captioning.generation.sampling import sample
from captioning.hashing import fold
from captioning.model.decoders.interface import Decoder


def generate(decoder: Decoder, features: Tensor, keys: Tensor, *, config: GenerationConfig, max_words: int) -> Captions:
    """Generate captions of images; an image's captions do not depend on the others.

    Args:
        decoder: decoder of the model, in eval mode.
        features: (B, R, C) region features of the images.
        keys: (B,) int64 number of each image, such as a hash of its content, which seeds its samples.
        config: settings of the generation.
        max_words: T, the number of words at which an unfinished caption is cut.

    Returns:
        K captions of each image, best first.

    Raises:
        ValueError: the settings ask for more words than ``max_words``.
    """
    config.check_words(max_words)
    constraints = Constraints(config.min_words, config.no_repeat_ngram)
    if config.is_sampling:
        numbers = torch.arange(config.num_samples, device=keys.device)
        found = sample(
            decoder,
            features,
            keys=fold(config.sampling_seed, keys[:, None], numbers),
            max_words=max_words,
            temperature=config.temperature,
            top_p=config.top_p,
            constraints=constraints,
        )
        return rank(found.tokens, found.log_probability, (found.tokens != PAD).sum(-1), config.length_power)
    options = {"max_words": max_words, "length_power": config.length_power, "constraints": constraints}
    if config.groups == 1:
        return beam_search(decoder, features, beam_size=config.beam_size, **options)
    return diverse_beam_search(
        decoder,
        features,
        beam_size=config.beam_size,
        groups=config.groups,
        group_penalty=config.group_penalty,
        **options,
    )
