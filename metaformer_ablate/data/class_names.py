"""The names of the classes of data sets that have many."""

from __future__ import annotations

# The fine labels, in the order of the file `meta`: alphabetical.
CIFAR100_CLASSES = tuple(
    name.replace("_", " ")
    for name in (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
        "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
        "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
        "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
        "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
        "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
        "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
        "wardrobe whale willow_tree wolf woman worm"
    ).split()
)


# The first name of each class of the SceneParsing benchmark, in the order of its objectInfo150.csv.
ADE20K_CLASSES = tuple(
    name.replace("_", " ")
    for name in (
        "wall building sky floor tree ceiling road bed windowpane grass cabinet sidewalk person earth door "
        "table mountain plant curtain chair car water painting sofa shelf house sea mirror rug field armchair "
        "seat fence desk rock wardrobe lamp bathtub railing cushion base box column signboard chest counter "
        "sand sink skyscraper fireplace refrigerator grandstand path stairs runway case pool pillow screen_door "
        "stairway river bridge bookcase blind coffee toilet flower book hill bench countertop stove palm "
        "kitchen computer swivel boat bar arcade hovel bus towel light truck tower chandelier awning "
        "streetlight booth television airplane dirt apparel pole land bannister escalator ottoman bottle "
        "buffet poster stage van ship fountain conveyer canopy washer plaything swimming stool barrel basket "
        "waterfall tent bag minibike cradle oven ball food step tank trade microwave pot animal bicycle lake "
        "dishwasher screen blanket sculpture hood sconce vase traffic tray ashcan fan pier crt plate monitor "
        "bulletin shower radiator glass clock flag"
    ).split()
)


# In the order of the ids in COCO's annotation files, which leave out eleven of 91.
COCO_CLASSES = tuple(
    (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
        "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
        "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball "
        "glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, "
        "apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
        "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
        "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
    ).split(", ")
)
