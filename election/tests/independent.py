#!/usr/bin/env python3
"""Prints golden vectors of the owner order: `nodes ip order`, one row a line.

Independent of the Rust code: SHA-256 of "<node>#<ip>", lowest digest first. `independent.txt` holds its output.
"""

import hashlib
import ipaddress
import random

rng = random.Random(20261121)
print("# nodes ip order; made by independent.py")
for row in range(200):
    nodes = rng.sample([f"node-{i}" for i in range(20)] + ["kind-worker", "ip-10-0-0-7.eu.internal", "0"], rng.randint(1, 7))
    if row % 2:
        ip = ipaddress.IPv4Address(rng.randint(0x0A000000, 0x0AFFFFFF))
    else:
        # Many zero groups, so that the shortest text of RFC 5952 is exercised.
        groups = [0xFC00 + rng.randint(0, 255)] + [rng.choice([0, 0, rng.randint(0, 0xFFFF)]) for _ in range(6)] + [rng.randint(1, 0xFFFF)]
        ip = ipaddress.IPv6Address(":".join(f"{g:x}" for g in groups))
    order = sorted(nodes, key=lambda node: hashlib.sha256(f"{node}#{ip}".encode()).digest())
    print(",".join(nodes), ip, ",".join(order))
