"""The decoder, its checkpoints, tokenizers and sampler. Imports nothing else of this project.

Shape legend, used in every name suffix of this package (`x_BTD` is `[batch, length, embed]`):

    B  rows of a batch            D  embed (residual) dimension
    T  query length               F  MLP hidden dimension
    S  key length                 N  query heads
    L  layers                     K  key/value heads (N is a multiple of K)
    V  vocabulary                 H  head dimension
    E  experts of a layer         C  experts that a token is sent to
    R  rank of a latent           (`models.layers.mla`; elsewhere query heads of a key head)
    P  prompts held by the sampler
    G  samples drawn for each prompt
    W  columns of the generated part of the KV cache
"""
