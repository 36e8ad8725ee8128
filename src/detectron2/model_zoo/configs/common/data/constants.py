# Of ImageNet's training images. For BGR the deviations are part of the pre-trained weights.
constants = dict(
    imagenet_bgr256_mean=[103.53, 116.28, 123.675],
    imagenet_bgr256_std=[1.0, 1.0, 1.0],
    imagenet_rgb256_mean=[123.675, 116.28, 103.53],
    imagenet_rgb256_std=[58.395, 57.12, 57.375],
)
