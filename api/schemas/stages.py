"""The options of the three stages: what may be asked, in which range, and what it means."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.strict import StrictBody

Auto = Literal["auto"]
EncoderName = Literal[
    "resnet10_tiny",
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "wide_resnet50_2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
]
Preset = Literal["photo", "small", "greyscale", "document", "microscopy", "satellite"]
Optimizer = Literal["adamw", "sgd", "lars"]
# Strict: neither true nor "7" is a number here.
Epochs = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Minutes = Annotated[float, Field(strict=True, gt=0, le=10_080, allow_inf_nan=False)]
BatchSize = Annotated[int, Field(strict=True, ge=2, le=65_536)]
Rate = Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
WarmupEpochs = Annotated[float, Field(strict=True, ge=0, le=100_000, allow_inf_nan=False)]
Norm = Annotated[float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)]
Temperature = Annotated[float, Field(strict=True, ge=0.01, le=100, allow_inf_nan=False)]
ImageSize = Annotated[int, Field(strict=True, ge=8, le=512)]
Width = Annotated[int, Field(strict=True, ge=2, le=4096)]
Layers = Annotated[int, Field(strict=True, ge=2, le=4)]
Patience = Annotated[int, Field(strict=True, ge=1, le=1000)]
InnerShare = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class StageOptions(StrictBody):
    """What every stage understands; `auto` is resolved from the data and the device."""

    model_config = ConfigDict(protected_namespaces=())

    epochs: Epochs | Auto = Field(
        default="auto",
        description="How many times training goes through all its images; `auto` decides from "
        "their number and the device; not together with `budget_minutes`.",
    )
    budget_minutes: Minutes | None = Field(
        default=None,
        description="How many minutes to train instead of a number of epochs: the first steps are "
        "timed, and the learning rate falls to zero as the time runs out. What a job compares, a "
        "`baseline` included, shares them.",
    )
    batch_size: BatchSize | Auto = Field(
        default="auto",
        description="How many images each training step looks at together; at most as many as "
        "there are to train on.",
    )
    optimizer: Optimizer | Auto = Field(
        default="auto",
        description="How weights are updated: `adamw` is the safe choice, `sgd` the classical "
        "one, `lars` is made for large batches.",
    )
    learning_rate: Rate | Auto = Field(
        default="auto",
        description="How large the steps of training are at their largest; too large a value "
        "makes the loss explode, too small a one learns slowly.",
    )
    weight_decay: Decay | Auto = Field(
        default="auto",
        description="How strongly weights are pulled towards zero, which keeps the model from "
        "learning single images by heart.",
    )
    warmup_epochs: WarmupEpochs | Auto = Field(
        default="auto",
        description="How many epochs the learning rate takes to rise from zero to its full "
        "value; `auto` is at most a tenth of the training, with `budget_minutes` counted from "
        "where the number of steps is known.",
    )
    clip_grad_norm: Norm | Auto | None = Field(
        default="auto",
        description="Upper limit for the length of a step's gradient, a guard against single "
        "wild batches; `null` is no limit, `auto` sets one for vision transformers only.",
    )
    precision: Literal["auto", "mixed", "float32"] = Field(
        default="auto",
        description="Which numbers a step computes with: `mixed` is bfloat16 for products and "
        "float32 for all else where the worker's GPU or CPU has instructions for that, and takes "
        "about half the time; `auto` is `mixed` on GPUs and `float32` on CPUs.",
    )
    augmentation: Preset | Auto = Field(
        default="auto",
        description="Which random changes the images go through in training: `document` does "
        "not mirror (writing, signs), `microscopy` and `satellite` also turn by quarters since "
        "nothing is up or down there; `auto` chooses among the others by colour and size.",
    )
    augmentation_strength: Annotated[float, Field(strict=True, ge=0, le=2, allow_inf_nan=False)] = (
        Field(
            default=1.0,
            description="How strong these changes are: 1 as in the preset, 0 next to none, 2 twice "
            "as strong.",
        )
    )
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = Field(
        default=0,
        description="Start of all random numbers: the same seed on the same data gives the same "
        "model on a CPU.",
    )


class ScaledRate(BaseModel):
    """The learning rate as a function of the batch."""

    lr_scaling: Literal["none", "sqrt", "linear"] | Auto = Field(
        default="auto",
        description="With `none` the learning rate is meant as it stands; with `sqrt` and "
        "`linear` it is meant for a batch of 256 and grows with the batch; `auto` is `none` for "
        "a learning rate of your own.",
    )


class NewEncoder(BaseModel):
    """The encoder of a stage that may begin without a model."""

    encoder: EncoderName | Auto = Field(
        default="auto",
        description="Which network turns an image into a vector; `auto` takes a small one on "
        "CPUs and a larger one on GPUs.",
    )
    stem: Literal["small", "imagenet"] | Auto = Field(
        default="auto",
        description="The first layers: `small` keeps the detail of small images, `imagenet` is "
        "as published for 224 pixels; `auto` is `small` up to 64 pixels.",
    )
    init: Literal["random", "imagenet"] | Auto = Field(
        default="auto",
        description="Weights to begin with: `random` (which is `auto`), or those learnt on "
        "ImageNet's photographs, which the worker needs to download once.",
    )
    image_size: ImageSize | Auto = Field(
        default="auto",
        description="Side in pixels that images are scaled to; `auto` is their own size, at most "
        "64 on CPUs and 224 on GPUs.",
    )


class PretrainOptions(StageOptions, ScaledRate, NewEncoder):
    """An encoder from all images (SimCLR); labels are used only if asked for."""

    model_id: UUID | None = Field(
        default=None,
        description="An encoder, or a classifier whose encoder is taken, to go on from with its "
        "network and image size; without it, training begins with the weights that `init` names.",
    )
    views: Literal[2, 4, 8, 16] = Field(
        default=2,
        description="How many differently changed copies of each image a step compares: more "
        "learn more from a step and cost as much more time and memory.",
    )
    loss: Literal["nt_xent", "supcon", "dcl"] | Auto = Field(
        default="auto",
        description="How copies of one image are told from other images: `nt_xent` is SimCLR's, "
        "`dcl` suits small batches, `supcon` suits many partners of one class and is `auto` with "
        "`use_labels`.",
    )
    use_labels: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether images with the same label attract each other too; labels of the "
        "test split are never used.",
    )
    label_share: InnerShare | Auto = Field(
        default="auto",
        description="With `use_labels`, the share of each batch that is drawn from the labelled "
        "images; `auto` is a quarter.",
    )
    temperature: Temperature | Auto = Field(
        default="auto",
        description="How much the hardest comparisons count: small values look at the most "
        "similar other images only, large ones at all alike.",
    )
    projection_dim: Width | Auto = Field(
        default="auto",
        description="Length of the vectors that are compared in training; what `/embed` answers "
        "does not depend on it.",
    )
    projection_layers: Layers | Auto = Field(
        default="auto",
        description="Layers between the encoder and the compared vectors; the first of them is "
        "what `layer: projection` of a finetune job builds on.",
    )
    micro_batch_size: BatchSize | Auto | None = Field(
        default="auto",
        description="How many images go through the network at once: smaller takes less memory "
        "for the same batch and some more time; `null` takes the whole batch.",
    )
    plateau_patience: Patience | None = Field(
        default=None,
        description="After how many measurements without progress training ends early; `null` "
        "is never.",
    )


class FinetuneOptions(StageOptions):
    """A classifier from the labelled images."""

    method: Literal["linear", "prototype", "full", "supcon"] | Auto = Field(
        default="auto",
        description="`linear` and `prototype` keep the encoder as it is (in seconds), `full` and "
        "`supcon` train it further; `auto` tries those that the number of labels allows and keeps "
        "the best on images held back.",
    )
    layer: Literal["encoder", "projection"] | Auto = Field(
        default="auto",
        description="What the classifier looks at: the encoder's own vectors, or the first layer "
        "after them from pre-training; `auto` compares both where there are both.",
    )
    solver: Literal["lbfgs", "sgd"] | Auto = Field(
        default="auto",
        description="How `linear` is computed: `lbfgs` exactly, `sgd` in batches for hundreds of "
        "thousands of labels.",
    )
    class_weights: Literal["none", "balanced"] | Auto = Field(
        default="auto",
        description="Whether rare classes count as much as frequent ones (`balanced`); `auto` "
        "does so when one class has more than three times the labels of another.",
    )
    calibrate: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="Whether probabilities are adjusted so that of the answers given with 80 % "
        "about 80 % are right; the answers themselves stay the same.",
    )
    baseline: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether a network without pre-training is also trained on the same labels "
        "and measured beside, to show what pre-training is worth.",
    )
    encoder_learning_rate: Rate | Auto = Field(
        default="auto",
        description="The learning rate of the encoder when it is trained further; `auto` is a "
        "tenth of `learning_rate` with `adamw` on a pre-trained encoder, otherwise the same.",
    )
    temperature: Temperature | Auto = Field(
        default="auto",
        description="For `supcon` only: how much the hardest comparisons count.",
    )
    views: Literal[2, 4, 8, 16] = Field(
        default=2,
        description="For `supcon` only: how many differently changed copies of each image a step "
        "compares.",
    )
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=0.0,
        description="How much doubt in the labels is assumed: 0.1 aims at 90 % for the given "
        "label instead of 100 %.",
    )


class DistillOptions(StageOptions, ScaledRate):
    """A student that learns the classifier's answers on all images."""

    student: EncoderName | Literal["same"] | Auto = Field(
        default="auto",
        description="The student's network: `auto` takes a smaller one than the teacher's, "
        "`same` the teacher's own.",
    )
    student_model_id: UUID | None = Field(
        default=None,
        description="An encoder or classifier whose encoder the student begins with, of the "
        "teacher's image size and channels; without it, the student begins with random weights.",
    )
    alpha: Share | Auto = Field(
        default="auto",
        description="How much the teacher's answers count against the labels: 1, which is "
        "`auto`, uses no labels, 0 only labels.",
    )
    temperature: Temperature | Auto = Field(
        default="auto",
        description="How soft the teacher's answers are made before they are learnt: above 1 its "
        "second choices count more.",
    )
    mixup: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether the teacher is also asked about blends of two images: more to learn "
        "from where images are few, and a longer way to the end.",
    )
