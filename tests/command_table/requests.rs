//! The data the comparisons run over, and requests that do something with it: every form of every kept read, and every
//! write with the options that matter to its keys.

/// Makes one key of each type, named by its type's first letter, and some to store into.
#[rustfmt::skip]
pub(crate) const POPULATE: &[&str] = &[
    "FLUSHALL", "MSET s 123 s2 hello bits foobar n 10", "HSET h f 1 g 2", "RPUSH l a b c a", "RPUSH nums 3 1 2",
    "SADD t a", "SADD t2 a b c", "ZADD z 1 a 2.5 b 3 c", "ZADD z2 1 b", "ZADD lex 0 a 0 b 0 c",
    "GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C", "XADD x 1-1 a 1", "XADD x 2-1 a 2",
    "XGROUP CREATE x gr 0", "PFADD p a b", "PFADD p2 c", "SET store victim", "SET ttl v EX 1000",
];

/// Reads whose replies the tier may keep.
#[rustfmt::skip]
pub(crate) const KEPT: &[&str] = &[
    "ZCARD z", "ZCARD none", "ZCOUNT z -inf +inf", "ZLEXCOUNT lex [a [b", "ZMSCORE z a none b", "ZMSCORE none a",
    "ZRANGE z 0 -1", "ZRANGE z 0 -1 WITHSCORES", "ZRANGE z 0 -1 REV withscores", "ZRANGE none 0 -1 WITHSCORES",
    "ZRANGE z 1 3 BYSCORE LIMIT 0 2 WITHSCORES", "ZRANGE lex [a [c BYLEX", "ZRANGEBYLEX lex [a [c LIMIT 0 1",
    "ZRANGEBYSCORE z -inf +inf", "ZRANGEBYSCORE z -inf +inf WITHSCORES LIMIT 0 2",
    "ZRANGEBYSCORE z 0 9 LIMIT 0 2 WITHSCORES", "ZRANK z b", "ZRANK z none", "ZREVRANK z b", "ZREVRANK none b",
    "ZRANK z a", "ZREVRANK z c",
    "ZREVRANGE z 0 -1", "ZREVRANGE z 0 -1 WITHSCORES", "ZREVRANGEBYLEX lex [c [a",
    "ZREVRANGEBYSCORE z +inf -inf WITHSCORES", "ZSCORE z b", "ZSCORE z none", "HEXISTS h f", "HEXISTS none f",
    "HGET h f", "HGET h none", "HGETALL h", "HGETALL none", "HKEYS h", "HLEN h", "HMGET h f none g", "HMGET none f",
    "HSTRLEN h f", "HVALS h", "GEODIST g P C", "GEODIST g P C km", "GEODIST g P none", "GEOHASH g P none",
    "GEOPOS g P none C", "GEOPOS none P", "GEOSEARCH g FROMMEMBER P BYRADIUS 300 km ASC WITHCOORD WITHDIST WITHHASH",
    "GEOSEARCH none FROMLONLAT 1 2 BYBOX 1 1 m", "GEORADIUS_RO g 15 37 200 km WITHDIST WITHCOORD",
    "GEORADIUSBYMEMBER_RO g P 200 km", "BITCOUNT bits", "BITCOUNT bits 0 1", "BITFIELD_RO bits GET u8 0 GET i4 8",
    "BITPOS bits 0", "BITPOS bits 1", "GETBIT bits 3", "GET s", "GET none", "GET h", "GETRANGE s2 0 2", "STRLEN s2", "SUBSTR s2 1 2",
    "LINDEX l 0", "LINDEX l 99", "LLEN l", "LPOS l a", "LPOS l none", "LPOS l a COUNT 0", "LPOS none a COUNT 1",
    "LRANGE l 0 -1", "SCARD t", "SISMEMBER t a", "SMEMBERS t", "SMEMBERS none", "SMISMEMBER t a b", "XLEN x",
    "XRANGE x - +", "XRANGE none - +", "XREVRANGE x + - COUNT 1", "TYPE s", "TYPE none", "EXISTS s", "EXISTS none",
    "MGET s none h", "MGET s",
];

/// Reads that are not kept; their RESP2 forms are compared all the same.
#[rustfmt::skip]
pub(crate) const NOT_KEPT: &[&str] = &[
    "ZUNION 2 z z2 WITHSCORES", "ZUNION 2 z z2 WEIGHTS 1 2 AGGREGATE MAX WITHSCORES", "ZINTER 2 z z2 WITHSCORES",
    "ZINTER 2 z z2", "ZDIFF 2 z z2 WITHSCORES", "ZRANDMEMBER z2 1 WITHSCORES", "ZRANDMEMBER none",
    "HRANDFIELD none 2 WITHVALUES", "HRANDFIELD none", "SORT l ALPHA GET none", "SORT_RO nums",
    "GEORADIUS g 15 37 200 km", "GEORADIUSBYMEMBER g P 1 km WITHDIST", "LCS s s2 IDX", "SINTER t t2", "SUNION t none",
    "SDIFF t none", "SINTERCARD 2 t t2", "OBJECT ENCODING s", "OBJECT ENCODING none", "DUMP none", "TTL s", "TOUCH s",
    "GETEX s", "GETEX none", "BITFIELD bits GET u8 0", "XREAD STREAMS none 0", "MEMORY USAGE none",
    "COMMAND INFO none", "CONFIG GET maxmemory", "ACL GETUSER none", "XINFO STREAM x", "EXISTS s h none",
];

/// Writes that change a key the server then reports, each run over fresh data.
#[rustfmt::skip]
pub(crate) const WRITES: &[&str] = &[
    "APPEND s x", "BITFIELD bits SET u8 0 1", "BITFIELD bits GET u8 0 INCRBY u8 0 1", "BITOP AND s bits s2",
    "COPY s s2 REPLACE", "COPY s2 s DB 0 REPLACE", "DECR n", "DECRBY n 2", "DEL s h none", "EXPIRE s 100",
    "EXPIREAT s 4000000000", "GEOADD g 1 1 x", "GEORADIUS g 15 37 200 km STORE store",
    "GEORADIUS g 15 37 200 km STORE s STORE store", "GEORADIUS g 15 37 200 km STORE s2 STOREDIST store",
    "GEORADIUS g 15 37 200 km COUNT 1 STOREDIST store ASC", "GEORADIUSBYMEMBER g P 200 km STORE store",
    "GEOSEARCHSTORE store g FROMMEMBER P BYRADIUS 300 km", "GETDEL s", "GETEX s EX 100", "GETEX ttl PERSIST",
    "GETSET s x", "HDEL h f", "HINCRBY h f 1", "HINCRBYFLOAT h f 1", "HMSET h f 2", "HSET h f 2", "HSETNX h new 1",
    "INCR n", "INCRBY n 2", "INCRBYFLOAT n 1", "LINSERT l BEFORE a x", "LMOVE l nums LEFT RIGHT",
    "LMPOP 2 none l LEFT", "LPOP l", "LPOP l 2", "LPUSH l x", "LPUSHX l x", "LREM l 1 a", "LSET l 0 x", "LTRIM l 0 0",
    "MOVE s 1", "MSET s 1 n 2", "MSETNX new 1 new2 2", "PERSIST ttl", "PEXPIRE s 100000", "PEXPIREAT s 4000000000000",
    "PFADD p z", "PFCOUNT p", "PFMERGE p p2", "PFMERGE store2 p", "PSETEX s 100000 x", "RENAME s s2",
    "RENAMENX s new", "RPOP l", "RPOPLPUSH l nums", "RPUSH l x", "RPUSHX l x", "SADD t x", "SDIFFSTORE store t2 t",
    "SET s x", "SET s x GET", "SETBIT bits 0 1", "SETEX s 100 x", "SETNX new x", "SETRANGE s 0 x",
    "SINTERSTORE store t t2", "SMOVE t t2 a", "SORT nums STORE store", "SORT nums STORE s STORE store",
    "SORT nums BY store LIMIT 0 1 STORE t", "SORT nums GET STORE GET # STORE store", "SPOP t", "SPOP t2 2",
    "SREM t a", "SUNIONSTORE store t t2", "UNLINK s h", "XADD x * a 3", "XDEL x 1-1",
    "XGROUP CREATE new gr 0 MKSTREAM", "XTRIM x MAXLEN 1", "ZADD z 9 x", "ZDIFFSTORE store 2 z z2", "ZINCRBY z 1 a",
    "ZINTERSTORE store 2 z z2 WEIGHTS 1 2", "ZMPOP 2 none z MAX COUNT 2", "ZPOPMAX z", "ZPOPMIN z 2",
    "ZRANGESTORE store z 0 -1", "ZREM z a", "ZREMRANGEBYLEX lex [a [b", "ZREMRANGEBYRANK z 0 0",
    "ZREMRANGEBYSCORE z 0 1", "ZUNIONSTORE store 2 z z2 AGGREGATE MAX", "BLPOP none l 1", "BRPOP l 1",
    "BLMOVE l nums LEFT LEFT 1", "BRPOPLPUSH l nums 1", "BLMPOP 1 2 none l LEFT", "BZPOPMIN none z 1", "BZPOPMAX z 1",
    "BZMPOP 1 2 none z MIN", "FLUSHALL", "FLUSHDB", "DEBUG RELOAD", "EVAL return{redis.call('set',KEYS[1],1)} 1 s",
];

/// Writes that need more than data to show an effect, or signal none: they are compared by their keys only.
#[rustfmt::skip]
pub(crate) const QUIET_WRITES: &[&str] = &[
    "XACK x gr 1-1", "XCLAIM x gr c 0 1-1", "XAUTOCLAIM x gr c 0 0", "XREADGROUP GROUP gr c STREAMS x >",
    "XREADGROUP GROUP gr c COUNT 1 NOACK STREAMS x x2 > >", "XREADGROUP BLOCK 5 GROUP gr c STREAMS x >",
    "XGROUP SETID x gr 0", "XGROUP CREATE x new 0", "XGROUP DESTROY x gr", "XSETID x 9-9",
    "XGROUP CREATECONSUMER x gr c", "XGROUP DELCONSUMER x gr c", "RESTORE s 0 payload", "RESTORE-ASKING s 0 payload",
    "MIGRATE h 1 k 0 9", "MIGRATE h 1 \"\" 0 9 KEYS a b", "MIGRATE h 1 k 0 9 COPY REPLACE AUTH pw",
    "MIGRATE h 1 \"\" 0 9 AUTH2 keys keys KEYS a keys", "PFDEBUG GETREG p", "PFSELFTEST", "EVALSHA sha 2 a b x",
    "FCALL f 1 a", "EVAL_RO s 1 a b", "EVALSHA_RO s 0", "FCALL_RO f 0 x", "FUNCTION DELETE l", "FUNCTION FLUSH",
    "FUNCTION LOAD x", "FUNCTION RESTORE x", "SWAPDB 0 1", "GETEX s", "BITFIELD bits GET u8 0", "SORT l",
    "GEORADIUS g 1 2 3 m", "GEORADIUSBYMEMBER g P 3 m", "XREAD COUNT 1 BLOCK 1 STREAMS a b 0 0",
    "XREAD STREAMS STREAMS a 0 0", "XREAD STREAMS a 0", "SINTERCARD 2 a b LIMIT 3", "ZINTERCARD 1 a", "WATCH a b",
    "MEMORY USAGE a SAMPLES 5", "SSUBSCRIBE a", "SPUBLISH a b", "LCS a b LEN", "OBJECT FREQ a",
    "SORT_RO a BY b GET c", "XINFO CONSUMERS x gr",
];
