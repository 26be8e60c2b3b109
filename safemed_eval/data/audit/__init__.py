"""Ways in which data give answers away: shared images and patients, cues in the text, images seen in training."""
