"""Defaults of the sections of ``MODEL`` up to its features, and of the anchors on them."""

BACKBONE = {
    # A name of BACKBONE_REGISTRY.
    "NAME": "build_resnet_backbone",
    # Stages that are not trained, from the stem (1) on; 0: all are.
    "FREEZE_AT": 2,
}

RESNETS = {
    # 18, 34, 50, 101 or 152.
    "DEPTH": 50,
    # The outputs among "stem" and "res2" to "res5".
    "OUT_FEATURES": ["res4"],
    # Name of the normalisation, see detectron2.layers.get_norm.
    "NORM": "FrozenBN",
    # Groups of the 3 x 3 convolutions; 32 in ResNeXt, say.
    "NUM_GROUPS": 1,
    # Channels of a group in "res2"; they double from stage to stage.
    "WIDTH_PER_GROUP": 64,
    # Bottlenecks stride in their first convolution, as the original (Caffe, MSRA) models do,
    # not in their 3 x 3, as those of torchvision.
    "STRIDE_IN_1X1": True,
    # Channels of the stem.
    "STEM_OUT_CHANNELS": 64,
    # Channels of "res2", 64 for the depths 18 and 34; they double from stage to stage.
    "RES2_OUT_CHANNELS": 256,
    # 2: "res5" dilates instead of striding.
    "RES5_DILATION": 1,
    # Deformable convolutions in the stages "res2" to "res5".
    "DEFORM_ON_PER_STAGE": [False, False, False, False],
    # Modulated ones, as in DCNv2.
    "DEFORM_MODULATED": False,
    # Groups of channels with offsets of their own.
    "DEFORM_NUM_GROUPS": 1,
}

FPN = {
    # The backbone's outputs that enter the pyramid.
    "IN_FEATURES": [],
    # Channels of every level.
    "OUT_CHANNELS": 256,
    # Name of the normalisation; "": none.
    "NORM": "",
    # How lateral and top-down features become one: "sum" or "avg".
    "FUSE_TYPE": "sum",
}

ANCHOR_GENERATOR = {
    # A name of ANCHOR_GENERATOR_REGISTRY.
    "NAME": "DefaultAnchorGenerator",
    # Square roots of the anchors' areas, in pixels of the input: a list a feature map, or one for
    # all.
    "SIZES": [[32, 64, 128, 256, 512]],
    # Height / width, in lists likewise.
    "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    # Of rotated anchors, in degrees, in lists likewise.
    "ANGLES": [[-90, 0, 90]],
    # Centre of the first anchor, in strides, from 0 to below 1.
    "OFFSET": 0.0,
}
