"""What training costs, counted from the shape of a model: numbers, bytes, floating-point operations. No torch.

    body      = layers * (hidden * head_dim * (2 heads + 2 kv_heads) + 3 * hidden * intermediate)
    embedding = vocabulary * hidden                     (twice when not tied)
    memory    = weights 2 B (NF4 body 0.53 B) + masters 4 B + gradient and two Adam moments 12 B a trained number
                + buffers of logits + activations + libraries
    FLOPs     = 2 (body + embedding) forward, + 2 body + 2 embedding where gradients reach the hidden states,
                + 2 embedding where old output rows train, + 6 adapters    (a token; attention scores left out)

Activations of a kept graph: 16 hidden + 8 (heads + kv_heads) head_dim + 6 intermediate bytes a token and layer;
adapters keep a float32 copy of their input besides. Counted with saved-tensor hooks on Gemma 3 270M: 51.8 and
91.6 bytes * hidden, the formula says 51.2 and 90.4. A vision tower (MedGemma 4B: 0.8 GB) is not in a shape.
"""

from __future__ import annotations

from collections.abc import Collection

from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Shape

_NF4 = 0.53  # bytes a number: half a byte, and scales quantised once more (QLoRA, arXiv 2305.14314, section 3)
_CHUNK, _SPAN = 16, 512  # tokens, of training.objective (which imports torch)


def values_moved(recipe: Recipe, train: Collection[str]) -> set[str]:
    """What moves; where the two routes are one value, a block stands once and without its route."""
    tied = recipe.base.tied
    shared = {"old": tied, "low": tied, "new": tied and not recipe.init.row_untied}
    return {b if shared.get(b := g.rpartition(".")[2], False) else g for g in train}


def trained_numbers(recipe: Recipe, train: Collection[str]) -> int:
    """Numbers that the groups move."""
    width = recipe.base.shape.hidden
    sizes = {"old": matrix_rows(recipe) * width, "new": recipe.tokenizer.pieces * width}
    sizes["low"] = (matrix_rows(recipe) + width) * recipe.lora.rank
    sizes["lora"] = adapter_numbers(recipe.base.shape, recipe.lora.rank, recipe.lora.modules)
    return sum(sizes[v.rpartition(".")[2]] for v in values_moved(recipe, train))


def body_numbers(shape: Shape) -> int:
    """Parameters of all layers (norms left out)."""
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def adapter_numbers(shape: Shape, rank: int, modules: Collection[str]) -> int:
    """Parameters of LoRA adapters on the named linear layers."""
    return shape.layers * sum(rank * sum(_linear(shape)[m]) for m in modules if m in _linear(shape))


def activation_bytes(
    shape: Shape, train: Collection[str], modules: Collection[str], *, recomputed: bool = False
) -> int:
    """Bytes a token that a forward pass holds until its backward pass; without a graph, two layers' worth; recomputed,
    the input of every layer and all of one (`training/recompute.py`)."""
    attention = 8 * (shape.heads + shape.kv_heads) * shape.head_dim
    layer = 16 * shape.hidden + attention + 6 * shape.intermediate
    if not keeps_graph(train):
        return 2 * layer
    adapters = 4 * sum(_linear(shape)[m][0] for m in modules if m in _linear(shape))
    return 2 * shape.hidden * shape.layers + layer + adapters if recomputed else shape.layers * (layer + adapters)


def logit_bytes(vocabulary: int, tokens: int) -> int:
    """The buffers of `training.objective.Workspace`: a chunk in float32, a span in bf16."""
    return vocabulary * (min(_CHUNK, tokens) * 4 + min(_SPAN, tokens) * 2)


def matrix_rows(recipe: Recipe) -> int:
    """Rows of the embedding matrices: appended pieces add to the base's."""
    return recipe.base.shape.vocabulary + (recipe.tokenizer.pieces if recipe.tokenizer.place == "append" else 0)


def state_bytes(recipe: Recipe, train: Collection[str], *, adapted: bool, opened: bool) -> float:
    """Bytes of weights, float32 masters, gradients and Adam moments.

    adapted: adapters are attached. opened: this or an earlier stage trains old rows, so their masters are held.
    """
    shape, base = recipe.base.shape, recipe.base
    matrices = 1 if base.tied else 2
    old, new = matrix_rows(recipe) * shape.hidden, recipe.tokenizer.pieces * shape.hidden
    adapters = adapter_numbers(shape, recipe.lora.rank, recipe.lora.modules) if adapted else 0
    body = body_numbers(shape) * (_NF4 if adapted and recipe.lora.body == "nf4" else 2)
    # Where the two routes are one value, a block counts once.
    routes = 1 if base.tied and not recipe.init.row_untied else 2
    held = routes * new + (matrices * old if opened else 0) + adapters
    return body + 2 * matrices * old + 4 * held + 12 * trained_numbers(recipe, train)


def flops_per_token(recipe: Recipe, train: Collection[str], *, adapted: bool) -> float:
    """Floating-point operations of one training token, forward and backward."""
    shape = recipe.base.shape
    body, embedding = body_numbers(shape), matrix_rows(recipe) * shape.hidden
    adapters = adapter_numbers(shape, recipe.lora.rank, recipe.lora.modules) if adapted else 0
    flops = 2.0 * (body + embedding + adapters)
    if keeps_graph(train):
        flops += 2 * (body + embedding + adapters)
    if "output.old" in train:
        flops += 2 * embedding
    return flops + (2 * adapters if "lora" in train else 0)


def keeps_graph(train: Collection[str]) -> bool:
    """Whether gradients reach hidden states, so that the forward pass is kept."""
    return "lora" in train or any(g.startswith("input.") for g in train)


def _linear(shape: Shape) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of a layer's linear maps, by module name."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden, query),
        "k_proj": (shape.hidden, key),
        "v_proj": (shape.hidden, key),
        "o_proj": (query, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }
