"""Names of the classes of common data sets, in the order in which models are trained on them."""

from __future__ import annotations

# Lin et al., "Microsoft COCO", 2014: the 80 classes with boxes.
COCO = tuple(
    """
    person/bicycle/car/motorcycle/airplane/bus/train/truck/boat/traffic light/fire hydrant/stop sign/parking meter/
    bench/bird/cat/dog/horse/sheep/cow/elephant/bear/zebra/giraffe/backpack/umbrella/handbag/tie/suitcase/frisbee/skis/
    snowboard/sports ball/kite/baseball bat/baseball glove/skateboard/surfboard/tennis racket/bottle/wine glass/cup/
    fork/knife/spoon/bowl/banana/apple/sandwich/orange/broccoli/carrot/hot dog/pizza/donut/cake/chair/couch/
    potted plant/bed/dining table/toilet/tv/laptop/mouse/remote/keyboard/cell phone/microwave/oven/toaster/sink/
    refrigerator/book/clock/vase/scissors/teddy bear/hair drier/toothbrush
    """.replace("\n", "")
    .replace("    ", "")
    .split("/")
)
# Everingham et al., "The PASCAL Visual Object Classes Challenge": segmentation, the background first.
PASCAL_VOC = tuple(
    (
        "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
        "pottedplant sheep sofa train tvmonitor"
    ).split()
)
# Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
CIFAR_10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
PERSON = ("no person", "person")
FACE = ("face",)
