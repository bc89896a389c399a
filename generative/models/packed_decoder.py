"""A packed causal decoder over items: one position an item, every position of a history a training target in one pass.

The body is `transformers`' GPT-2 without its vocabulary. An item's vector is a sum: the embeddings of its codes, its fused vector
through a projection behind a strong dropout, a learned vector of its own; which of them is configured. The same vectors are the
inputs and, tied, the outputs (Press and Wolf, arXiv 1608.05859). The item as one position and codes for an item vector are RPG's
(arXiv 2506.05781), the dense vector beside them LIGER's (2411.18814); with item vectors alone it is SASRec (1808.09781) with a
softmax loss. An item that training does not know borrows the learned vector of the known one nearest by fused vector: without
one it is shorter than all others and never recommended (Beauty: 0 of 138 against 7, docs/log.md). Learned vectors are dropped
by whole items now and then, so that codes and fused vector learn to speak for an item alone.

Heads are modules of their own: `item_head`, `depth_head`.

Shape suffixes: R packed rows, W positions, N items, L levels, D model width, F width of the fused vector, H attention heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2Model

from sidlake.generative.config import DecoderConfig
from sidlake.generative.models.attention import ATTENTION
from sidlake.generative.models.depth_head import DepthHead
from sidlake.generative.models.dropout import drop, replace_dropouts
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.repeats import RepeatBias

__all__ = ["PackedDecoder"]

_INITIAL_STD = 0.02
"""GPT-2's standard deviation of embeddings."""
_ITEM_DROPOUT = 0.1
"""Share of items whose learned vector is left out in a step."""


class PackedDecoder(nn.Module):
    """Gives states per position and vectors per item; weights come from torch's global generator: seed it first."""

    codes_NL: Tensor
    fused_NF: Tensor
    known_N: Tensor
    lender_N: Tensor

    def __init__(self, facts: ItemFacts, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.widths = facts.widths
        for name in ("codes_NL", "fused_NF", "known_N"):
            self.register_buffer(name, getattr(facts, name))
        self.register_buffer("lender_N", facts.lenders(), persistent=False)
        width = config.d_model
        self.body = GPT2Model._from_config(_gpt2_config(config), attn_implementation=ATTENTION)
        replace_dropouts(self.body)
        self.codes = _embedding(sum(facts.widths), width) if "codes" in config.inputs else None
        self.fused = nn.Linear(facts.fused_NF.shape[1], width, bias=False) if "fused" in config.inputs else None
        if self.fused is not None:
            nn.init.normal_(self.fused.weight, std=_INITIAL_STD / math.sqrt(max(facts.fused_NF.shape[1], 1)))
        self.item = _embedding(facts.num_items, width) if "item" in config.inputs else None
        self.depth = DepthHead(facts.widths, config) if "depth" in config.heads else None
        self.repeats = RepeatBias(config.max_history) if config.repeats else None

    def item_vectors(self, items_M: Tensor | None = None) -> Tensor:
        """Return the vectors of `items_M`, all items without, (M, D) float32, with dropout while training."""
        rows = slice(None) if items_M is None else items_M
        parts = []
        if self.codes is not None:
            parts.append(functional.embedding(self.codes_NL[rows], self.codes.weight).sum(dim=1))
        if self.fused is not None:
            fused_MF = self.fused_NF[rows]
            parts.append(self.fused(drop(fused_MF, self.config.fused_dropout) if self.training else fused_MF).float())
        if self.item is not None:
            lender_M = self.lender_N[rows]
            kept_M1 = self.known_N[lender_M].float()[:, None]
            if self.training and len(self.config.inputs) > 1:
                kept_M1 = kept_M1 * (torch.rand_like(kept_M1) >= _ITEM_DROPOUT)
            parts.append(self.item(lender_M) * kept_M1)
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]

    def states(self, items_MD: Tensor, items_RW: Tensor, segment_RW: Tensor, place_RW: Tensor) -> Tensor:
        """Return the states (R, W, D) in which the next item is asked for; a position sees earlier ones of its own segment only.

        `items_RW` are rows of `items_MD`.
        """
        positions_W = torch.arange(items_RW.shape[1], device=items_RW.device)
        same_RWW = segment_RW[:, :, None] == segment_RW[:, None, :]
        visible_RWW = same_RWW & (positions_W[:, None] >= positions_W[None, :])
        states_RWD: Tensor = self.body(
            inputs_embeds=functional.embedding(items_RW, items_MD),
            attention_mask=visible_RWW[:, None],
            position_ids=place_RW,
            use_cache=False,
        ).last_hidden_state
        return states_RWD


def _embedding(num: int, width: int) -> nn.Embedding:
    table = nn.Embedding(num, width)
    nn.init.normal_(table.weight, std=_INITIAL_STD)
    return table


def _gpt2_config(config: DecoderConfig) -> GPT2Config:
    return GPT2Config(
        vocab_size=1,
        n_positions=config.max_history,
        n_embd=config.d_model,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        n_inner=config.d_ff or 4 * config.d_model,
        embd_pdrop=config.dropout,
        resid_pdrop=config.dropout,
        attn_pdrop=0.0,  # with it torch has no fused attention on a CPU; it helped nothing here
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
