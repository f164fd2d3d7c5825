"""Public vision-language-action checkpoints behind the face of :class:`evovla.actor.Chunker`.

OpenVLA-OFT and SmolVLA have no class in ``transformers``: the modules here are ours, made so that
their parameters have the names of the public files. Weights come from safetensors in a local
folder; nothing is downloaded, unpickled or run from a checkpoint.
"""
