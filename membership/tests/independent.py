#!/usr/bin/env python3
"""Computes the golden values of src/seal.rs without any code of ours: HMAC from Python, XChaCha20-Poly1305 from libsodium."""

import ctypes, ctypes.util, hashlib, hmac

sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    block, okm, counter = b"", b"", 1
    while len(okm) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        okm, counter = okm + block, counter + 1
    return okm[:length]


def seal(key: bytes, nonce: bytes, header: bytes, text: bytes) -> tuple[bytes, bytes]:
    out = ctypes.create_string_buffer(len(text) + 16)
    sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        out, None, text, ctypes.c_ulonglong(len(text)), header, ctypes.c_ulonglong(len(header)), None, nonce, key
    )
    return out.raw[: len(text)], out.raw[len(text) :]


secret, cluster = b"correct horse battery staple", b"garpike"
key = hkdf(secret, b"garpike membership 1 key\0" + cluster, 32)
text, tag = seal(key, bytes([7] * 24), b"header", b"who is alive")
print("key id", hkdf(secret, b"garpike membership 1 key id\0" + cluster, 4).hex())
print("text  ", text.hex())
print("tag   ", tag.hex())
