"""EvoVLA: long-horizon manipulation by stages (arXiv 2511.16166).

Stage dictionaries, stage-aligned reward, pose-based exploration, memory and policy.
"""
