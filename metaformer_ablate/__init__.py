"""Ablations of MetaFormer (Yu et al., CVPR 2022): which part of the model matters?"""

__version__ = "0.1.0"
