"""DeepLabv3 and DeepLabv3+: semantic segmentation with atrous convolutions.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017; Chen et al.,
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.
"""

from detectron2.projects.deeplab.build_solver import build_lr_scheduler
from detectron2.projects.deeplab.config import add_deeplab_config
from detectron2.projects.deeplab.resnet import build_resnet_deeplab_backbone
from detectron2.projects.deeplab.semantic_seg import DeepLabV3Head, DeepLabV3PlusHead

__all__ = [
    "DeepLabV3Head",
    "DeepLabV3PlusHead",
    "add_deeplab_config",
    "build_lr_scheduler",
    "build_resnet_deeplab_backbone",
]
