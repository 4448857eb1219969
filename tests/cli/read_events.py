"""Prints what TensorBoard's own reader finds in a folder of event files, as JSON.

    python tests/cli/read_events.py FOLDER

scalars: by tag [[step, value]…]; images: by tag [[step, height, width, bytes]…]; histograms: by tag
[[step, min, max, num, sum, sum of squares, limits, counts]…].
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KEEP_ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0, "compressedHistograms": 1}


def main() -> None:
    reader = EventAccumulator(sys.argv[1], size_guidance=KEEP_ALL)
    reader.Reload()
    tags = reader.Tags()

    def each(kind, read, describe):
        return {tag: [[event.step, *describe(event)] for event in read(tag)] for tag in tags[kind]}

    def histogram(event):
        h = event.histogram_value
        return h.min, h.max, h.num, h.sum, h.sum_squares, list(h.bucket_limit), list(h.bucket)

    found = {
        "scalars": each("scalars", reader.Scalars, lambda event: [event.value]),
        "images": each(
            "images", reader.Images, lambda event: [event.height, event.width, list(event.encoded_image_string)]
        ),
        "histograms": each("histograms", reader.Histograms, histogram),
    }
    json.dump(found, sys.stdout)


main()
