"""What detectors have in common that predict at every location of their feature maps."""

from typing import Any

import torch
from torch import nn

from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.layers import move_device_like
from detectron2.modeling._preprocessing import make_batch
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.postprocessing import detector_postprocess, detector_postprocess_batch
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
