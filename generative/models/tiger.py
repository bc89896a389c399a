"""A TIGER-style recommender: a T5 encoder reads the history, its decoder spells the next item's semantic ID code by code.

Rajput et al., "Recommender Systems with Generative Retrieval" (arXiv 2305.05065), trained from random weights with the transformer
of `transformers`. Four deliberate differences. An item of the history is one encoder position, the sum of its codes' embeddings, so
the encoder is L times shorter. A learned embedding of the place, counted from the newest item, is added, since the decoder's
cross-attention has no positions of its own. The logits of level l run over the codes of level l only. There are no user tokens.

Shape suffixes: B rows, H items of history, L levels, T = H*L tokens, P decoded codes, D model width, K codes of a level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config, T5Model

from sidlake.generative.catalogue import BOS, PAD, TokenSpace
from sidlake.generative.config import GenerativeConfig

__all__ = ["GenerativeModel", "TigerScorer"]


class GenerativeModel(nn.Module):
    """Scores the codes of the next item given the history's tokens; weights come from torch's global generator: seed it first."""

    def __init__(self, space: TokenSpace, config: GenerativeConfig) -> None:
        super().__init__()
        self.space = space
        self.config = config
        self.transformer = T5Model(_t5_config(space, config))
        self.place_HD = nn.Parameter(torch.randn(config.max_history, config.d_model))

    def encode(self, history_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's states (B, H, D) and their mask (B, H); PAD items are masked, and a history may be all PAD."""
        items_BHL = history_BT.view(len(history_BT), -1, self.space.num_levels)
        mask_BH = (items_BHL[:, :, 0] != PAD).long()
        # The last place is always visible, so that a user without history attends to something: the embedding of PAD.
        mask_BH[:, -1] = 1
        embedded_BHD = self.transformer.shared(items_BHL).sum(dim=2) + self.place_HD[-items_BHL.shape[1] :]
        states_BHD = self.transformer.encoder(inputs_embeds=embedded_BHD, attention_mask=mask_BH).last_hidden_state
        return states_BHD, mask_BH

    def decode(self, prefix_BP: Tensor, states_BHD: Tensor, mask_BH: Tensor) -> Tensor:
        """Return the decoder's outputs (B, P+1, D) after BOS and each of the P tokens of `prefix_BP`; P may be 0."""
        bos_B1 = torch.full((len(states_BHD), 1), BOS, dtype=torch.long, device=states_BHD.device)
        hidden_BPD: Tensor = self.transformer.decoder(
            input_ids=torch.cat([bos_B1, prefix_BP], dim=1),
            encoder_hidden_states=states_BHD,
            encoder_attention_mask=mask_BH,
            use_cache=False,
        ).last_hidden_state
        return hidden_BPD

    def level_logits(self, hidden_BD: Tensor, level: int) -> Tensor:
        """Return the logits (B, K) over the codes of `level`, float32, from the decoder's output in front of it."""
        start = self.space.offsets[level]
        codes_KD = self.transformer.shared.weight[start : start + self.space.widths[level]]
        logits_BK: Tensor = functional.linear(hidden_BD, codes_KD).float() * self.config.d_model**-0.5
        return logits_BK

    def loss(self, history_BT: Tensor, target_BL: Tensor) -> Tensor:
        """Return the cross-entropy of the target's codes, averaged over levels and rows; one forward pass for all levels."""
        hidden_BLD = self.decode(target_BL[:, :-1], *self.encode(history_BT))
        losses = [
            functional.cross_entropy(
                self.level_logits(hidden_BLD[:, level], level),
                target_BL[:, level] - self.space.offsets[level],
                label_smoothing=self.config.label_smoothing,
            )
            for level in range(self.space.num_levels)
        ]
        return torch.stack(losses).mean()


class TigerScorer:
    """Log-probabilities of codes for the beam search, after the tokens `history_BT` (`beam_search.CodeScorer`)."""

    def __init__(self, model: GenerativeModel, history_BT: Tensor) -> None:
        self.num_users, self.device = len(history_BT), history_BT.device
        self._model = model
        self._states_BHD, self._mask_BH = model.encode(history_BT)

    def log_probs(self, prefix_BWP: Tensor) -> Tensor:
        """Return the log-probabilities (B, W, K) over the codes of level P, float32."""
        num_beams, level = prefix_BWP.shape[1:]
        states, mask = (part.repeat_interleave(num_beams, dim=0) for part in (self._states_BHD, self._mask_BH))
        hidden = self._model.decode(prefix_BWP.flatten(0, 1), states, mask)
        log_probs_XK = self._model.level_logits(hidden[:, -1], level).log_softmax(dim=-1)
        return log_probs_XK.view(self.num_users, num_beams, self._model.space.widths[level])


def _t5_config(space: TokenSpace, config: GenerativeConfig) -> T5Config:
    return T5Config(
        vocab_size=space.size,
        d_model=config.d_model,
        d_kv=config.d_model // config.num_heads,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout_rate=config.dropout,
        pad_token_id=PAD,
        use_cache=False,
    )
