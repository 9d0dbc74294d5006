"""What each part of a trained network contributes.

*Saliency* is OBD's predicted loss increase; *importance* is any other criterion.
"""

from evo_topo.saliency.ablation import ablation, brute_force, mean_loss
from evo_topo.saliency.baselines import LabelGradients, apoz, magnitude, magnitude_prices, norm_scale
from evo_topo.saliency.cascade import RankedUnit, cascade
from evo_topo.saliency.gates import GateProbe, masked
from evo_topo.saliency.joint import MacLedger, cheapest_units
from evo_topo.saliency.obd import (
    GateStatistics,
    cautious_saliency,
    gate_statistics,
    obd_saliency,
    set_saliency,
)
from evo_topo.saliency.pricing import obd_prices
from evo_topo.saliency.pruning import Pruned, as_edit, prune_to
from evo_topo.saliency.reconstruction import reconstruct
from evo_topo.saliency.structural import price, price_with_gates
from evo_topo.saliency.weights import ggn_diagonal, weight_obd

__all__ = [
    "GateProbe",
    "GateStatistics",
    "LabelGradients",
    "MacLedger",
    "Pruned",
    "RankedUnit",
    "ablation",
    "apoz",
    "as_edit",
    "brute_force",
    "cascade",
    "cautious_saliency",
    "cheapest_units",
    "gate_statistics",
    "ggn_diagonal",
    "magnitude",
    "magnitude_prices",
    "masked",
    "mean_loss",
    "norm_scale",
    "obd_prices",
    "obd_saliency",
    "price",
    "price_with_gates",
    "prune_to",
    "reconstruct",
    "set_saliency",
    "weight_obd",
]
