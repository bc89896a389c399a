"""How to read each metric, as a table: by the question it answers, (metric, title, unit, sentence). `readings` is for who asks."""

from __future__ import annotations

from typing import Literal

__all__ = ["ROWS", "Unit"]

Unit = Literal["share", "index", "items", "codes", "levels", "sessions", "nats", "distance", ""]
"""What a value counts. A share is part of a whole, an index a number between -1 and 1, a distance is in the vectors' units."""

ROWS: dict[str, tuple[tuple[str, str, Unit, str], ...]] = {
    "collisions": (
        ("unique_share", "Unique SIDs", "share", "Different SIDs over items; 100% by law. Below it, a SID names two items."),
        (
            "raw_collision_rate",
            "Collisions before uniqueness",
            "share",
            "Items that would have no SID of their own if nothing made them unique. 0% is best; beyond a third the code space is "
            "too small or the items too alike.",
        ),
        (
            "raw_uniquely_identified_share",
            "Items alone on their nearest SID",
            "share",
            "Items whose nearest codes no other item has; the rest had to share or to move.",
        ),
        (
            "raw_largest_group",
            "Most crowded nearest SID",
            "items",
            "Items that want the same SID; a large group usually has the same text, or none.",
        ),
        (
            "raw_largest_group_share",
            "Items in the most crowded nearest SID",
            "share",
            "Items that want the one most wanted SID; a large share usually has the same text, or none.",
        ),
        (
            "raw_leaf_gini",
            "Unevenness of the nearest SIDs (Gini)",
            "index",
            "How unevenly items crowd the occupied nearest SIDs: 0 is even. FORGE's balance metric. After uniqueness it is 0 by "
            "construction, so it is taken before.",
        ),
    ),
    "use": (
        (
            "level_utilisation",
            "Codes in use",
            "share",
            "Codes of each level that any item uses; an unused code is space that was paid for and lies idle.",
        ),
        ("level_dead_codes", "Unused codes", "codes", "Codes of each level that no item uses; 0 is best."),
        (
            "level_largest_share",
            "Items on the most used code",
            "share",
            "Items that have the most used code of each level; a large share is a collapsed level.",
        ),
        (
            "level_normalised_entropy",
            "Evenness of use",
            "share",
            "Entropy over the most that the width allows: 100% is even use; low values mean that a few codes hold most items.",
        ),
        ("level_entropy", "Entropy of use", "nats", "Information in each level's codes; at most the logarithm of its width."),
        ("level_perplexity", "Effective codes", "codes", "How many evenly used codes each level is worth; compare with its width."),
        (
            "conditional_entropy",
            "Entropy given the prefix",
            "nats",
            "What each level still tells once the codes before it are known; near 0 it adds nothing.",
        ),
    ),
    "tree": (
        ("prefix_largest", "Fullest prefix", "items", "Items below the fullest prefix; compare with the mean load."),
        (
            "prefix_mean_load",
            "Items that share a prefix",
            "items",
            "How many items share an item's prefix, on average over items; it should fall fast from level to level.",
        ),
        (
            "prefix_alone_share",
            "Items alone on their prefix",
            "share",
            "Items that no other item shares the prefix with; early on that means the prefix groups nothing.",
        ),
        ("fan_out_mean", "Codes after a prefix", "codes", "Codes that follow a prefix, on average: the choice that a decoder has."),
        ("fan_out_max", "Codes after the widest prefix", "codes", "Codes that follow the prefix with the most."),
        ("fan_out_gini", "Unevenness of branching (Gini)", "index", "How unevenly prefixes branch: 0 is even."),
        (
            "prefix_gini",
            "Unevenness of prefixes (Gini)",
            "index",
            "How unevenly items crowd the occupied prefixes as published; at the last level 0 by construction.",
        ),
        (
            "raw_prefix_gini",
            "Unevenness before uniqueness (Gini)",
            "index",
            "How unevenly items crowd the occupied prefixes of the nearest SIDs: 0 is even.",
        ),
        (
            "capacity_gini",
            "Unevenness over all prefixes (Gini)",
            "index",
            "How unevenly items crowd all prefixes that could exist, empty ones included; at the last level it only says how full "
            "the code space is.",
        ),
        (
            "raw_capacity_gini",
            "Unevenness over all, before moves (Gini)",
            "index",
            "How unevenly nearest SIDs crowd all prefixes that could exist; near 1 in every large code space.",
        ),
        (
            "mean_depth",
            "Levels that tell an item apart",
            "levels",
            "Mean of the levels it takes to tell an item from the others.",
        ),
        ("depth_deviation", "Spread of that depth", "levels", "Standard deviation over items; 0 is a balanced tree."),
    ),
    "fidelity": (
        (
            "relative_reconstruction_error",
            "Detail lost by published SIDs",
            "share",
            "Share of the vectors' variance that the published codes lose: 0% is lossless, 100% knows only the average item.",
        ),
        (
            "prefix_reconstruction_error",
            "Detail lost up to each level",
            "share",
            "Share of the vectors' variance that the nearest codes up to each level lose; it should fall at each.",
        ),
        (
            "foreign_item_share",
            "New items unlike the old",
            "share",
            "New items that lie further from every published item than published ones lie from each other (lower end of a 95% "
            "interval); a large share means another encoder, or another kind of item.",
        ),
        (
            "neighbourhood_jaccard",
            "Neighbours kept",
            "share",
            "Overlap of an item's 20 nearest before and after quantizing; compare with what chance gives.",
        ),
        (
            "neighbourhood_rbo",
            "Order of neighbours kept",
            "index",
            "Overlap of the 20 nearest before and after, the nearest weighing most: 1 keeps every order.",
        ),
        ("neighbourhood_random_jaccard", "Neighbours kept by chance", "share", "The overlap that chance alone gives."),
        (
            "prefix_spearman",
            "Alike items share prefixes",
            "index",
            "Rank correlation of likeness and length of the shared prefix over random pairs: 1 is perfect, 0 is none.",
        ),
        (
            "prefix_spearman_near",
            "Alike items share prefixes, near ones",
            "index",
            "Rank correlation of likeness and length of the shared prefix among near items, where it is hard.",
        ),
    ),
    "uniqueness": (
        (
            "moved_share",
            "Items moved to be unique",
            "share",
            "Items whose published codes are not their nearest ones, because another item has those.",
        ),
        ("mean_move_cost", "Mean cost of a move", "distance", "Mean of how much further from its vector a moved item's SID lies."),
        ("move_cost_p50", "Median cost of a move", "distance", "Half of the moved items cost at most this."),
        ("move_cost_p90", "Cost of nine moves in ten", "distance", "Nine of ten moved items cost at most this."),
        ("move_cost_p99", "Cost of 99 moves in 100", "distance", "All but one in a hundred moved items cost at most this."),
        ("move_cost_max", "Dearest move", "distance", "The item that paid most; it leads the list of items that moved furthest."),
        (
            "spill_rate",
            "Items that left their prefix",
            "share",
            "Items that had to change more than the last code; these lose their neighbourhood.",
        ),
    ),
    "hit_rate": (
        (
            "ehr_raw",
            "Hit rate of the vectors",
            "share",
            "How often the next item is among the 30 nearest of what the user had, by the vectors: the ceiling for any SID.",
        ),
        (
            "ehr_quantized",
            "Hit rate of the nearest SIDs",
            "share",
            "How often the next item is among the 30 nearest, by vectors decoded from the nearest codes; the gap to the vectors is "
            "what quantizing costs.",
        ),
        (
            "ehr_reconstructed",
            "Hit rate of the published SIDs",
            "share",
            "How often the next item is among the 30 nearest of what the user had, knowing SIDs only. It ranks SIDs of one "
            "catalogue, not catalogues, and does not promise a recommender's recall.",
        ),
        (
            "ehr_unmoved",
            "Hit rate without uniqueness",
            "share",
            "The rate of the published SIDs if no item had moved: the gap between them is what moving costs.",
        ),
        ("ehr_random_floor", "Hit rate by chance", "share", "What random vectors would hit; a rate near it is worth nothing."),
        (
            "ehr_reconstructed_over_floor",
            "Hit rate beyond chance",
            "share",
            "The rate of the published SIDs less the rate by chance: 0 or below says nothing of what comes next.",
        ),
        (
            "ehr_fused_over_modality",
            "Fused beyond the best modality alone",
            "share",
            "The rate of the fused vectors less that of the best modality alone, upper end of the 95% interval: below 0, fusing "
            "loses what that one knew.",
        ),
        (
            "ehr_sampled_share",
            "Sessions scored, of all",
            "share",
            "Beyond `quality.exact_items` items a seeded sample of sessions is scored, each against every item; the intervals are "
            "wider for it, and hold.",
        ),
        ("ehr_num_sessions", "Sessions scored", "sessions", "Users' histories that were scored; few make every rate uncertain."),
        (
            "leaked_session_share",
            "Sessions that leaked",
            "share",
            "Sessions that ask for an event which the embeddings were learned from; any makes hit rates worthless.",
        ),
    ),
    "behaviour": (
        (
            "consecutive_share",
            "Items taken in a row that share a prefix",
            "share",
            "How often items that a user took one after the other share the prefix; compare with the shuffled rate.",
        ),
        (
            "consecutive_shuffled_share",
            "Items taken in a row, shuffled",
            "share",
            "How often they share the prefix after shuffling who took what: what popularity alone gives.",
        ),
    ),
    "meaning": (
        (
            "category_purity",
            "Items in their prefix's main category",
            "share",
            "Compare with groups dealt at random: many small groups are pure by themselves.",
        ),
        (
            "category_dealt_purity",
            "Purity of groups dealt at random",
            "share",
            "The purity of groups of the same sizes dealt at random.",
        ),
        (
            "category_nmi",
            "Agreement of prefixes and categories",
            "index",
            "Normalised mutual information, 0 to 1: what prefixes and categories tell of each other; compare with the dealt value.",
        ),
        (
            "category_dealt_nmi",
            "Agreement of groups dealt at random",
            "index",
            "The agreement of groups of the same sizes dealt at random.",
        ),
    ),
    "stability": (
        (
            "staleness_share",
            "Items that their SID has fallen behind",
            "share",
            "Items that changed since they got their SID and would get another today; a growing share calls for a new generation.",
        ),
        (
            "staleness_level_share",
            "Codes that have fallen behind",
            "share",
            "Items whose nearest code at the level is another today.",
        ),
        (
            "staleness_growth",
            "How far SIDs have fallen behind",
            "distance",
            "How much nearer to its vector the SID of such an item would be today, on average.",
        ),
        (
            "code_churn",
            "Codes changed",
            "share",
            "Items of both releases whose code at the level changed; within a generation 0 by law.",
        ),
        (
            "code_churn_relabelled",
            "Codes changed, renamed",
            "share",
            "Items whose code changed, after the best renaming of codes: what really moved.",
        ),
        (
            "prefix_churn",
            "Prefixes changed",
            "share",
            "Items of both releases whose prefix up to the level changed; a trained model must learn these again.",
        ),
        (
            "prefix_churn_relabelled",
            "Prefixes changed, renamed",
            "share",
            "Items whose prefix changed, after the best renaming of codes.",
        ),
        (
            "code_churn_unaligned",
            "Codes changed, unaligned",
            "share",
            "Items whose code would have changed, had no new code been named after an old one.",
        ),
        (
            "prefix_churn_unaligned",
            "Prefixes changed, unaligned",
            "share",
            "Items whose prefix would have changed, had no new code been named after an old one.",
        ),
        (
            "gone_item_share",
            "Items gone",
            "share",
            "Items of the release before that this one lacks; many at once are seldom meant.",
        ),
        ("changed_item_share", "Items changed", "share", "Items of the release before that have another content now."),
        ("lost_event_share", "Events lost", "share", "By how much the number of events fell since the release before."),
        ("rejected_share", "Rows refused", "share", "Refused rows, of those, the items and the events together."),
        ("rejected_share_rise", "More rows refused", "share", "How much the share of refused rows grew since the release before."),
        (
            "without_vector_share_rise",
            "More items without a vector",
            "share",
            "How much the share of items without a vector grew, of the modality where it grew most; behaviour does not count.",
        ),
        (
            "confused_text_share",
            "Texts with another's vector",
            "share",
            "Items whose text vector another text has too: a model that cannot read a script gives all its texts one vector.",
        ),
    ),
}
