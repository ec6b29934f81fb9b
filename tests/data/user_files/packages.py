"""npm's packages of emoji, few of them: `node_modules` as `npm install` leaves it."""

import json

from PIL import Image

from vlm_jax.data.user_files.emoji_packages import NAMES, RENDERINGS

NAMED = [
    {"hexcode": "1F600", "label": "Grinning Face", "tags": ["smile"]},
    {"hexcode": "2764", "label": "red heart"},  # its drawings are named 2764-fe0f
    {"hexcode": "1F44B", "label": "waving hand", "tags": [], "skins": [{"hexcode": "1F44B-1F3FB"}]},  # by one hand
    {"hexcode": "1F1E6", "label": "regional indicator A"},  # nobody drew it
]


def write_packages(root):
    """The packages below `root`, which is returned."""
    (root / NAMES).parent.mkdir(parents=True)
    (root / NAMES).write_text(json.dumps(NAMED), encoding="utf-8")
    renderings = {"google": ["1f600", "2764-fe0f", "1f44b", "1f44b-1f3fb"], "fluent3d": ["1f600", "2764-fe0f"]}
    for hand, (folder, ending) in RENDERINGS.items():
        (root / folder).mkdir(parents=True)
        for code in renderings[hand]:
            image = Image.new("RGBA", (64, 64) if hand == "google" else (256, 256), (0, 0, 0, 0))
            image.paste((200, 30, 40, 255), (0, 0, image.width, image.height // 2))
            image.save(root / folder / f"{code}{ending}", lossless=True)
    return root
