"""PointRend: mask heads, the semantic head and their models."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_mask_head,
    build_model,
    build_sem_seg_head,
)
from detectron2.projects.point_rend import (
    ImplicitPointRendMaskHead,
    PointRendMaskHead,
    PointRendSemSegHead,
    add_pointrend_config,
)
from detectron2.projects.point_rend import mask_head as mask_head_module
from detectron2.projects.point_rend.mask_head import ConvFCHead
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    point_sample,
)
from detectron2.projects.point_rend.roi_heads import PointRendROIHeads
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from .project_models import (
    FPN_OF_R50,
    SMALL_FPN,
    build_on_meta,
    check_training_step,
    head_shapes,
    make_config,
)

MASK = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "",
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 5,
    "INPUT.MASK_FORMAT": "bitmask",
}
IMPLICIT = {
    **MASK,
    "MODEL.ROI_MASK_HEAD.NAME": "ImplicitPointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": False,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.POINT_HEAD.NAME": "ImplicitPointHead",
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 3,
}
SEMANTIC = {
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.SEM_SEG_HEAD.NAME": "PointRendSemSegHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.POINT_HEAD.NUM_CLASSES": 19,
    "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 2048,
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 2,
    "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 8192,
    "MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER": False,
}
RESNEXT = {
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.NUM_GROUPS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}
EIGHT_CLASSES = {"MODEL.ROI_HEADS.NUM_CLASSES": 8, "MODEL.POINT_HEAD.NUM_CLASSES": 8}


def layers(shapes):
    return {
        f"{name}.{part}": [shape[0]] if part == "bias" else shape
        for name, shape in shapes.items()
        for part in ("weight", "bias")
    }


def conv_fc_shapes(name, outputs):
    shapes = {
        "reduce_spatial_dim_conv": [256, 256, 2, 2],
        "fc1": [1024, 12544],
        "fc2": [1024, 1024],
        "prediction": [outputs, 1024],
    }
    return layers({f"{name}.{layer}": shape for layer, shape in shapes.items()})


def point_rend_shapes(classes):
    width = 256 + classes
    shapes = {f"point_head.fc{i}": [256, width, 1] for i in (1, 2, 3)}
    shapes["point_head.predictor"] = [classes, width, 1]
    return layers(shapes) | conv_fc_shapes("coarse_head", 49 * classes)


@pytest.mark.parametrize(
    ("values", "tensors", "parameters", "shapes"),
    [
        ((MASK,), 311, 60161792, point_rend_shapes(80)),
        ((MASK, EIGHT_CLASSES), 311, None, point_rend_shapes(8)),
        ((MASK, {"MODEL.RESNETS.DEPTH": 101}), 566, None, point_rend_shapes(80)),
        ((MASK, RESNEXT), 566, 123246336, point_rend_shapes(80)),
        (
            (IMPLICIT,),
            304,
            None,
            {
                "point_head.positional_encoding_gaussian_matrix": [2, 128],
                **conv_fc_shapes("parameter_head", 283472),
            },
        ),
    ],
    ids=["coco", "cityscapes", "R-101", "X-101", "implicit"],
)
def test_state(values, tensors, parameters, shapes):
    model = build_on_meta(make_config(add_pointrend_config, FPN_OF_R50, *values))
    assert len(model.state_dict()) == tensors
    assert parameters in (None, sum(p.numel() for p in model.parameters()))
    found = head_shapes(model, "roi_heads.mask_head.")
    assert list(found.items()) == list(shapes.items())


def test_state_of_semantic_segmentation():
    cfg = make_config(add_pointrend_config, FPN_OF_R50, SEMANTIC, {"MODEL.RESNETS.DEPTH": 101})
    model = build_on_meta(cfg)
    assert len(model.state_dict()) == 567
    assert sum(p.numel() for p in model.parameters()) == 47572582
    assert list(head_shapes(model, "sem_seg_head.point_head.").items()) == list(
        layers(
            {
                "fc1": [256, 275, 1],
                "fc2": [256, 256, 1],
                "fc3": [256, 256, 1],
                "predictor": [19, 256, 1],
            }
        ).items()
    )
    coarse = head_shapes(model, "sem_seg_head.coarse_sem_seg_head.")
    assert coarse["p5.4.weight"] == [128, 128, 3, 3]
    assert coarse["predictor.weight"] == [19, 128, 1, 1]


def test_registered():
    assert ROI_MASK_HEAD_REGISTRY.get("PointRendMaskHead") is PointRendMaskHead
    assert ROI_MASK_HEAD_REGISTRY.get("ImplicitPointRendMaskHead") is ImplicitPointRendMaskHead
    assert ROI_HEADS_REGISTRY.get("PointRendROIHeads") is PointRendROIHeads
    assert SEM_SEG_HEADS_REGISTRY.get("PointRendSemSegHead") is PointRendSemSegHead


def test_conv_fc_head():
    head = ConvFCHead(
        ShapeSpec(channels=6, height=4, width=8), conv_dim=3, fc_dims=[5], output_shape=(2, 3, 3)
    )
    x = torch.randn(4, 6, 4, 8)
    y = F.relu(F.conv2d(x, *head.reduce_channel_dim_conv.parameters()))
    y = F.relu(F.conv2d(y, *head.reduce_spatial_dim_conv.parameters(), stride=2)).reshape(4, -1)
    y = F.relu(F.linear(y, *head.fc1.parameters()))
    expected = F.linear(y, *head.prediction.parameters()).reshape(4, 2, 3, 3)
    torch.testing.assert_close(head(x), expected)
    assert head(x[:0]).shape == (0, 2, 3, 3)


SMALL_MASK = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_MASK_HEAD.FC_DIM": 16,
    "MODEL.POINT_HEAD.NUM_CLASSES": 3,
    "MODEL.POINT_HEAD.FC_DIM": 8,
    "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 20,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 50,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}


def mask_config(values=MASK, **options):
    options = {name.replace("__", "."): value for name, value in options.items()}
    return make_config(add_pointrend_config, SMALL_FPN, values, SMALL_MASK, options)


SHAPES = {"p2": ShapeSpec(channels=8, stride=4), "p3": ShapeSpec(channels=8, stride=8)}


def mask_head(values=MASK, **options):
    return build_mask_head(mask_config(values, **options), SHAPES)


def features(images):
    return {"p2": torch.randn(images, 8, 16, 20), "p3": torch.randn(images, 8, 8, 10)}


def random_boxes(count):
    corners = torch.rand(count, 2) * torch.tensor([40.0, 30.0])
    return torch.cat([corners, corners + 8 + 20 * torch.rand(count, 2)], dim=1)


def proposals(counts):
    return [
        Instances(
            (64, 80),
            proposal_boxes=Boxes(random_boxes(n)),
            gt_classes=torch.randint(0, 3, (n,)),
            gt_masks=BitMasks(torch.rand(n, 64, 80) > 0.5),
        )
        for n in counts
    ]


def detections(counts):
    return [
        Instances(
            (64, 80),
            pred_boxes=Boxes(random_boxes(n)),
            pred_classes=torch.randint(0, 3, (n,)),
        )
        for n in counts
    ]


@pytest.mark.parametrize(
    ("side", "points", "steps", "expected"),
    [(7, 784, 5, (28, 3)), (7, 783, 5, (14, 4)), (14, 100, 2, (14, 2))],
)
def test_where_subdivision_begins(side, points, steps, expected):
    head = mask_head(
        MODEL__ROI_MASK_HEAD__OUTPUT_SIDE_RESOLUTION=side,
        MODEL__POINT_HEAD__SUBDIVISION_NUM_POINTS=points,
        MODEL__POINT_HEAD__SUBDIVISION_STEPS=steps,
    )
    found = head.mask_point_subdivision_init_resolution, head.mask_point_subdivision_steps
    assert found == expected


def test_pooling_on_a_grid():
    head, maps = mask_head(), features(2)
    boxes = [Boxes(random_boxes(2)), Boxes(random_boxes(1))]
    pooled = head._roi_pooler([maps["p2"]], boxes)
    assert pooled.shape == (3, 8, 14, 14)
    x0, y0, x1, y1 = boxes[1].tensor[0].tolist()
    for row, column in ((0, 0), (5, 9), (13, 13)):
        point = torch.tensor(
            [[[x0 + (column + 0.5) / 14 * (x1 - x0), y0 + (row + 0.5) / 14 * (y1 - y0)]]]
        )
        expected = point_sample(
            maps["p2"][1:], point / torch.tensor([80.0, 64.0]), align_corners=False
        )
        torch.testing.assert_close(pooled[2, :, row, column], expected[0, :, 0])


@pytest.mark.parametrize("counts", [[3, 2], [2, 0], [0, 0]])
@pytest.mark.parametrize("values", [MASK, IMPLICIT], ids=["standard", "implicit"])
def test_losses_of_the_mask_head(values, counts):
    head = mask_head(values).train()
    with EventStorage():
        losses = head(features(2), proposals(counts))
    names = {"loss_l2"} if values is IMPLICIT else {"loss_mask"}
    assert set(losses) == names | {"loss_mask_point"}
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("values", [MASK, IMPLICIT], ids=["standard", "implicit"])
def test_mask_head_under_autocast(values):
    head, maps = mask_head(values), features(2)
    maps = {name: x.to(torch.bfloat16) for name, x in maps.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with EventStorage():
            losses = head.train()(maps, proposals([3, 2]))
        outputs = head.eval()(maps, detections([2, 1]))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert [len(x.pred_masks) for x in outputs] == [2, 1]


def test_losses_with_the_coarse_head_alone():
    head = mask_head(MODEL__ROI_MASK_HEAD__POINT_HEAD_ON=False)
    assert not hasattr(head, "point_head")
    with EventStorage():
        assert set(head.train()(features(1), proposals([2]))) == {"loss_mask"}
    (output,) = head.eval()(features(1), detections([2]))
    assert output.pred_masks.shape == (2, 1, 7, 7)


def test_point_loss_is_that_of_the_sampled_points(monkeypatch):
    head, maps, instances = mask_head().train(), features(2), proposals([2, 3])
    seen = {}

    def record(logits, instances, labels):
        seen.update(logits=logits, labels=labels)
        return logits.sum() * 0

    sample = head._sample_train_points
    monkeypatch.setattr(
        head, "_sample_train_points", lambda *x: seen.setdefault("points", sample(*x))
    )
    monkeypatch.setattr(mask_head_module, "roi_mask_point_loss", record)
    with EventStorage():
        head(maps, instances)
    coords, labels = seen["points"]
    assert coords.shape == (5, 20, 2)
    assert labels is seen["labels"]
    # The last box of the second image.
    box = instances[1].proposal_boxes.tensor[2]
    in_image = coords[4:] * (box[2:] - box[:2]) + box[:2]
    relative = in_image / torch.tensor([80.0, 64.0])
    fine = point_sample(maps["p2"][1:], relative, align_corners=False)
    coarse_mask = head.coarse_head(
        head._roi_pooler([maps["p2"]], [x.proposal_boxes for x in instances])
    )
    coarse = point_sample(coarse_mask[4:], coords[4:], align_corners=False)
    torch.testing.assert_close(seen["logits"][4:], head.point_head(fine, coarse))
    mask = instances[1].gt_masks.tensor[2:, None].float()
    expected = point_sample(mask, relative, align_corners=False)[:, 0]
    torch.testing.assert_close(labels[4:], expected, atol=1e-4, rtol=0)


def test_regularizer():
    head = mask_head(IMPLICIT).train()
    maps, instances = features(1), proposals([3])
    with EventStorage():
        losses = head(maps, instances)
    pooled = head._roi_pooler([maps["p2"]], [instances[0].proposal_boxes])
    expected = 1e-5 * (head.parameter_head(pooled) ** 2).mean()
    torch.testing.assert_close(losses["loss_l2"], expected)


def slow_subdivision(head, maps, instances, representations):
    """All classes' maps, one instance at a time."""
    masks = []
    index_of_box = 0
    for image, x in enumerate(instances):
        for box, label in zip(x.pred_boxes.tensor, x.pred_classes.tolist(), strict=True):

            def logits_at(coords, box=box, image=image, index=index_of_box):
                relative = (coords * (box[2:] - box[:2]) + box[:2]) / torch.tensor([80.0, 64.0])
                fine = point_sample(maps["p2"][image : image + 1], relative, align_corners=False)
                return head._get_point_logits(fine, coords, representations[index : index + 1])

            side = head.mask_point_subdivision_init_resolution
            grid = generate_regular_grid_point_coords(1, side, box.device)
            logits = logits_at(grid).reshape(1, -1, side, side)
            for _ in range(head.mask_point_subdivision_steps):
                logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
                side *= 2
                certainty = logits[0, label].abs().flatten()
                for i in certainty.argsort()[: head.mask_point_subdivision_num_points].tolist():
                    row, column = divmod(i, side)
                    point = torch.tensor([[[(column + 0.5) / side, (row + 0.5) / side]]])
                    logits[0, :, row, column] = logits_at(point)[0, :, 0]
            masks.append(logits[0, label].sigmoid())
            index_of_box += 1
    return torch.stack(masks)[:, None]


@pytest.mark.parametrize("values", [MASK, IMPLICIT], ids=["standard", "implicit"])
@torch.no_grad()
def test_subdivision(values):
    head = mask_head(
        values,
        MODEL__ROI_MASK_HEAD__OUTPUT_SIDE_RESOLUTION=3,
        MODEL__POINT_HEAD__SUBDIVISION_NUM_POINTS=30,
        MODEL__POINT_HEAD__SUBDIVISION_STEPS=2,
    ).eval()
    for parameter in head.parameters():
        # Else all logits are about 0, and any points are as uncertain.
        parameter.normal_(std=0.3)
    maps, instances = features(2), detections([2, 1])
    coarse = head.coarse_head if values is MASK else head.parameter_head
    representations = coarse(head._roi_pooler([maps["p2"]], [x.pred_boxes for x in instances]))
    expected = slow_subdivision(head, maps, instances, representations)
    outputs = head(maps, instances)
    side = {"PointRendMaskHead": 12, "ImplicitPointRendMaskHead": 20}[type(head).__name__]
    assert expected.shape == (3, 1, side, side)
    found = torch.cat([x.pred_masks for x in outputs])
    assert found.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("values", [MASK, IMPLICIT], ids=["standard", "implicit"])
def test_masks_of_no_detections(values):
    outputs = mask_head(values).eval()(features(2), detections([0, 0]))
    assert [len(x.pred_masks) for x in outputs] == [0, 0]


def test_several_features():
    head = mask_head(
        MODEL__ROI_MASK_HEAD__IN_FEATURES=["p2", "p3"], MODEL__POINT_HEAD__IN_FEATURES=["p2", "p3"]
    )
    # Of 16 channels, which are reduced to 8.
    assert head.coarse_head.reduce_channel_dim_conv.weight.shape == (8, 16, 1, 1)
    assert head.point_head.fc1.weight.shape == (8, 19, 1)
    assert head.eval()(features(1), detections([2]))[0].pred_masks.shape == (2, 1, 224, 224)


def test_classes_must_agree():
    with pytest.raises(ValueError, match="got 4 and 3"):
        mask_head(MODEL__POINT_HEAD__NUM_CLASSES=4)


def image_with_objects():
    height, width = 96, 128
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 10:60, 20:70] = True
    masks[1, 40:90, 60:120] = True
    objects = Instances(
        (height, width),
        gt_boxes=Boxes(torch.tensor([[20.0, 10, 70, 60], [60, 40, 120, 90]])),
        gt_classes=torch.tensor([0, 2]),
        gt_masks=BitMasks(masks),
    )
    return {"image": torch.rand(3, height, width) * 255, "instances": objects}


@pytest.mark.parametrize("values", [MASK, IMPLICIT], ids=["standard", "implicit"])
def test_model(values):
    model = build_model(mask_config(values))
    names = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "loss_mask_point"}
    names |= {"loss_l2"} if values is IMPLICIT else {"loss_mask"}
    with EventStorage():
        check_training_step(model, [image_with_objects(), image_with_objects()], names)
    model.eval()
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 96, 128), "height": 48, "width": 64}])
    found = output["instances"]
    assert len(found) > 0
    assert found.pred_masks.shape == (len(found), 48, 64)
    assert found.pred_masks.dtype == torch.bool


def test_old_configuration_and_weights():
    """Of the time when the mask head was two heads."""
    cfg = mask_config(
        MODEL__ROI_HEADS__NAME="PointRendROIHeads",
        MODEL__ROI_MASK_HEAD__NAME="CoarseMaskHead",
        MODEL__ROI_MASK_HEAD__POOLER_TYPE="ROIAlignV2",
    )
    model = build_model(cfg)
    assert cfg.MODEL.ROI_MASK_HEAD.NAME == "CoarseMaskHead"
    assert type(model.roi_heads.mask_head) is PointRendMaskHead
    assert model.roi_heads.mask_pooler is None
    new = model.state_dict()
    old = {}
    for name, value in new.items():
        name = name.replace("mask_head.point_head", "mask_point_head")
        name = name.replace("mask_head.coarse_head.fc", "mask_head.coarse_head.coarse_mask_fc")
        old[name.replace("mask_head.coarse_head", "mask_coarse_head")] = torch.randn_like(
            value, dtype=torch.float32
        ).to(value.dtype)
    assert "roi_heads.mask_coarse_head.coarse_mask_fc1.weight" in old
    assert "roi_heads.mask_point_head.fc1.weight" in old
    model.load_state_dict(old)
    loaded = model.state_dict()
    for name, old_value in zip(loaded, old.values(), strict=True):
        assert torch.equal(loaded[name], old_value), name
    # New ones are taken as they are.
    model.load_state_dict(new)


def semantic_config(*values):
    small = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
        "MODEL.SEM_SEG_HEAD.NORM": "",
        "MODEL.POINT_HEAD.NUM_CLASSES": 4,
        "MODEL.POINT_HEAD.FC_DIM": 8,
        "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 50,
        "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 37,
    }
    return make_config(add_pointrend_config, SMALL_FPN, SEMANTIC, small, *values)


TWO_FEATURES = {
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2", "p3"],
    "MODEL.POINT_HEAD.IN_FEATURES": ["p2", "p3"],
}


@torch.no_grad()
def test_semantic_subdivision():
    """Two features, which are side by side in the channels."""
    head = build_sem_seg_head(semantic_config(TWO_FEATURES), SHAPES).eval()
    for parameter in head.parameters():
        parameter.normal_(std=0.3)
    maps = features(2)
    logits, losses = head(maps)
    assert losses == {}
    coarse = head.coarse_sem_seg_head.layers(maps)
    for n in range(2):
        expected = coarse[n : n + 1]
        for _ in range(2):
            expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
            best = expected[0].sort(dim=0, descending=True).values
            width = expected.shape[3]
            for i in (best[0] - best[1]).flatten().argsort()[:37].tolist():
                row, column = divmod(i, width)
                point = [[(column + 0.5) / width, (row + 0.5) / expected.shape[2]]]
                sampled = [
                    point_sample(x[n : n + 1], torch.tensor([point]), align_corners=False)
                    for x in (maps["p2"], maps["p3"], coarse)
                ]
                fine = torch.cat(sampled[:2], dim=1)
                expected[0, :, row, column] = head.point_head(fine, sampled[2])[0, :, 0]
        torch.testing.assert_close(logits[n : n + 1], expected, atol=1e-4, rtol=1e-4)


def test_semantic_labels_at_points(monkeypatch):
    head = build_sem_seg_head(semantic_config(TWO_FEATURES), SHAPES).train()
    targets = torch.randint(0, 4, (2, 64, 80))
    targets[:, :20] = 255
    seen = {}
    cross_entropy = F.cross_entropy

    def record(logits, labels, **options):
        if labels.dim() == 2:
            seen["labels"] = labels
        return cross_entropy(logits, labels, **options)

    monkeypatch.setattr(F, "cross_entropy", record)
    coords = torch.rand(2, 50, 2)
    # The very corners, which are in the first and last pixels.
    coords[:, 0], coords[:, 1] = 0.0, 1.0
    module = "detectron2.projects.point_rend.semantic_seg"
    monkeypatch.setattr(f"{module}.get_uncertain_point_coords_with_randomness", lambda *x: coords)
    _, losses = head(features(2), targets)
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_point"}
    for n, p in np.ndindex(2, 50):
        x, y = coords[n, p].tolist()
        assert seen["labels"][n, p] == targets[n, min(int(y * 64), 63), min(int(x * 80), 79)]


def test_semantic_model():
    model = build_model(semantic_config())
    batch = [
        {"image": torch.rand(3, 64, 96) * 255, "sem_seg": torch.randint(0, 4, (64, 96))}
        for _ in range(2)
    ]
    check_training_step(model, batch, {"loss_sem_seg", "loss_sem_seg_point"})
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 64, 96), "height": 30, "width": 50}])
    assert output["sem_seg"].shape == (4, 30, 50)


def test_semantic_head_where_nothing_counts():
    head = build_sem_seg_head(semantic_config(TWO_FEATURES), SHAPES).train()
    _, losses = head(features(2), torch.full((2, 64, 80), 255))
    sum(losses.values()).backward()
    assert [x.item() for x in losses.values()] == [0, 0]
    assert not any(p.grad.any() for p in head.parameters())


def test_semantic_head_under_autocast():
    head = build_sem_seg_head(semantic_config(TWO_FEATURES), SHAPES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, losses = head.train()(features(2), torch.randint(0, 4, (2, 64, 80)))
        logits, _ = head.eval()(features(2))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert logits.shape == (2, 4, 64, 80)


def test_semantic_classes_must_agree():
    with pytest.raises(ValueError, match="got 5 and 4"):
        build_model(semantic_config({"MODEL.POINT_HEAD.NUM_CLASSES": 5}))
