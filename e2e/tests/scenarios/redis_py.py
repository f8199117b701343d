"""What applications do with redis-py, against a cache at the given host and port."""

import sys

import redis

host, port = sys.argv[1], int(sys.argv[2])


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


for protocol in (2, 3):
    cache = redis.Redis(host=host, port=port, protocol=protocol, decode_responses=True)
    cache.flushall()
    expect(cache.ping(), True, "PING")
    expect(cache.set("key", "value", ex=100), True, "SET EX")
    expect(cache.get("key"), "value", "GET")
    expect(0 < cache.ttl("key") <= 100, True, "TTL")
    expect(cache.set("key", "other", nx=True), None, "SET NX")
    expect(cache.set("key", "third", get=True), "value", "SET GET")
    expect(cache.getdel("key"), "third", "GETDEL")
    expect(cache.get("key"), None, "GET of nothing")
    expect(cache.incr("count", 5), 5, "INCR")
    expect(cache.incrbyfloat("float", 0.5), 0.5, "INCRBYFLOAT")
    expect(cache.append("text", "abc"), 3, "APPEND")
    expect(cache.mset({f"many:{i}": i for i in range(1000)}), True, "MSET")
    expect(cache.mget([f"many:{i}" for i in range(1000)]), [str(i) for i in range(1000)], "MGET")
    pipeline = cache.pipeline(transaction=False)
    for i in range(1000):
        pipeline.get(f"many:{i}")
    expect(pipeline.execute(), [str(i) for i in range(1000)], "pipeline")
    expect(len(set(cache.scan_iter(match="many:*", count=100))), 1000, "SCAN")
    expect(cache.exists("many:0", "many:1", "none"), 2, "EXISTS")
    expect(cache.delete(*[f"many:{i}" for i in range(1000)]), 1000, "DEL")
    expect(cache.unlink("count", "float", "text"), 3, "UNLINK")
    expect(cache.dbsize(), 0, "DBSIZE")
    binary = redis.Redis(host=host, port=port, protocol=protocol)
    blob = bytes(range(256)) * 4096
    expect(binary.set(b"blob\r\n\x00", blob), True, "SET of 1 MiB")
    expect(binary.get(b"blob\r\n\x00"), blob, "GET of 1 MiB")
    print(f"redis-py {redis.__version__}, RESP{protocol}: works")
