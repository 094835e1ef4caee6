"""METEOR 1.5 for English: how well a caption's words align with a reference's, also by stem, synonym and paraphrase.

Reading order: ``scorer`` (alignments to scores), ``aligner`` (the best alignment, by beam search), ``matchers`` (which
words and phrases match), ``normalizer`` (a caption's words), ``index`` (the data of METEOR as a compact index on disk),
``hashed_lists`` (its format). The data are those of the installed pycocoevalcap; Java is not needed.

- Denkowski and Lavie 2014, https://aclanthology.org/W14-3348 (METEOR 1.5, the weights).
- Denkowski and Lavie 2011, https://aclanthology.org/W11-2107 (matchers, alignment, function words).
- Lavie and Agarwal 2007, https://aclanthology.org/W07-0734 (the score).
"""
