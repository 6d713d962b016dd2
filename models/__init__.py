"""The decoder, its checkpoints, tokenizers and samplers. Imports nothing else of this project.

Names of arrays end in the letters of their axes: `x_BTD` has the shape `[batch, length, embed]`.
Docstrings write the same letters in brackets: `[B, T, D]`. Each letter has one meaning in this
package:

    Sizes of the model                      Axes of the data
    D  embed (residual stream)              B  rows of a batch
    F  hidden units of an MLP               T  tokens of a row: a sequence, a prompt or a step
    L  layers                               S  tokens that queries attend to: keys and values
    V  vocabulary                           U  tokens of several rows, joined in one axis
    N  query heads
    K  key/value heads                      Samplers and their caches
    Q  query heads of each key/value head   P  prompts held at a time
       (N = K * Q)                          A  prompts admitted at a time, at most P
    H  head dimension                       G  samples drawn from each prompt
    Y  rotated pairs of a head              W  most new tokens; columns of a cache that hold them
       (`rope_dim / 2`)                     C  columns of one block that attention reads at a time
    Z  size of the latent of latent         R  places for the paths of each prompt
       attention                            M  rows of each prompt that a search extends at a time
    E  experts of a layer                   O  columns of the open rows that are extended
    X  experts chosen for each token        I, J  rows and columns of the table that a token is
                                                  drawn from (`models.decoding.sampling`)

A name leaves leading axes of any number out: `hidden_D` is `[..., D]`.
"""
