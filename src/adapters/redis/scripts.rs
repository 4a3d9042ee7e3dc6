//! The Lua that Redis runs, one script for each thing that must happen as one.
//!
//! All keys of subscriptions have one hash tag, so on a cluster they are on one node. A
//! record is kept as `<version> <scope> <JSON>`; the scope is there so that a script finds
//! the old one without reading JSON. A stamp is the time of Redis in microseconds, or one
//! more than the last where that is greater: no stamp comes twice, also when a replica
//! takes over that missed the last writes.
//!
//! Each key holds a member without a name beside what it is for, so that none is ever
//! absent: one that is was evicted or deleted, and then all count as lost. Making a new
//! marker builds the others again from the records that are left.

use ::redis::Cmd;

/// Before each script that writes subscriptions. `KEYS` of all scripts about them: marker,
/// records, ids, ids by scope, versions of scopes, last stamp. `ARGV[1]`: the channel.
const PRELUDE: &str = r"
local whole = redis.call('EXISTS', unpack(KEYS, 1, 6))
local marker = whole == 6 and redis.call('GET', KEYS[1])
local fresh, seen, scopes = false, {}, {}

local function touch(scope)
  if not seen[scope] then
    seen[scope] = true
    scopes[#scopes + 1] = scope
  end
end

local function there(id)
  local kept = redis.call('HGET', KEYS[2], id)
  if not kept then return nil end
  local first = string.find(kept, ' ', 1, true)
  local second = first and string.find(kept, ' ', first + 1, true)
  if not second then return '0', nil end
  return string.sub(kept, 1, first - 1), string.sub(kept, first + 1, second - 1)
end

local function leave(id, scope)
  redis.call('ZREM', KEYS[4], scope .. ' ' .. id)
  touch(scope)
end

local function write(id, version, scope, record)
  redis.call('HSET', KEYS[2], id, version .. ' ' .. scope .. ' ' .. record)
  redis.call('ZADD', KEYS[3], 0, id)
  redis.call('ZADD', KEYS[4], 0, scope .. ' ' .. id)
  touch(scope)
end

local function mark(marker_id)
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
  for _, id in ipairs(redis.call('HKEYS', KEYS[2])) do
    local _, scope = there(id)
    if scope then
      redis.call('ZADD', KEYS[3], 0, id)
      redis.call('ZADD', KEYS[4], 0, scope .. ' ' .. id)
      touch(scope)
    end
  end
  redis.call('HSET', KEYS[2], '', '')
  redis.call('ZADD', KEYS[3], 0, '')
  redis.call('ZADD', KEYS[4], 0, '')
  redis.call('HSET', KEYS[5], '', '0')
  redis.call('SET', KEYS[1], marker_id)
  marker, fresh = marker_id, true
end

local function answer(word)
  return {word, marker or '', '0', '0', {}}
end

local function done()
  if #scopes == 0 and not fresh then return answer('done') end
  local before = redis.call('GET', KEYS[6]) or '0'
  local time = redis.call('TIME')
  local stamp = time[1] * 1000000 + time[2]
  if stamp <= tonumber(before) then stamp = tonumber(before) + 1 end
  stamp = string.format('%.0f', stamp)
  redis.call('SET', KEYS[6], stamp)
  for _, scope in ipairs(scopes) do
    redis.call('HSET', KEYS[5], scope, stamp)
  end
  redis.call('PUBLISH', ARGV[1], before .. ' ' .. stamp .. '\n' .. table.concat(scopes, '\n'))
  return {'done', marker, before, stamp, scopes}
end
";

/// `ARGV`: channel, id of a new marker, or empty when none may be made; id, expected version
/// or empty, version, scope, record.
const PUT: &str = r"
if not marker and (ARGV[2] == '' or whole > 0) then return answer('lost') end
local id, scope = ARGV[3], ARGV[6]
local version, old = there(id)
if (version or '') ~= ARGV[4] then return answer('conflict') end
if not marker then mark(ARGV[2]) end
if old and old ~= scope then leave(id, old) end
write(id, ARGV[5], scope, ARGV[7])
return done()
";

/// `ARGV`: channel, id of a new marker, and for each: id, scope, record.
const PUT_ALL: &str = r"
if not marker then mark(ARGV[2]) end
for i = 3, #ARGV, 3 do
  local id, scope = ARGV[i], ARGV[i + 1]
  local version, old = there(id)
  if old and old ~= scope then leave(id, old) end
  write(id, string.format('%.0f', (tonumber(version) or 0) + 1), scope, ARGV[i + 2])
end
return done()
";

/// `KEYS[7]`: since when endpoints fail. `ARGV`: channel, id, expected version, or empty for any.
const DELETE: &str = r"
if not marker then return answer('lost') end
local version, old = there(ARGV[2])
if version and ARGV[3] ~= '' and version ~= ARGV[3] then return answer('conflict') end
redis.call('HDEL', KEYS[7], ARGV[2])
if not version then return answer('absent') end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
if old then leave(ARGV[2], old) end
return done()
";

/// `ARGV`: channel, id of a new marker.
const INIT: &str = r"
if marker then return answer('there') end
mark(ARGV[2])
local made = done()
made[1] = 'made'
return made
";

/// `ARGV`: scope, or empty for all; the id to begin after, or empty; how many. Answers:
/// marker, version of the scope, ids, records.
///
/// Records are asked for in parts: what Lua may unpack is bounded.
const PAGE: &str = r"
if redis.call('EXISTS', unpack(KEYS)) < #KEYS then return {'', '0', {}, {}} end
local marker = redis.call('GET', KEYS[1])
local scope, after, limit = ARGV[1], ARGV[2], ARGV[3]
local version, ids = '0', nil
if scope == '' then
  ids = redis.call('ZRANGEBYLEX', KEYS[3], '(' .. after, '+', 'LIMIT', 0, limit)
else
  version = redis.call('HGET', KEYS[5], scope) or '0'
  local from = '(' .. scope .. ' ' .. after
  ids = redis.call('ZRANGEBYLEX', KEYS[4], from, '(' .. scope .. '!', 'LIMIT', 0, limit)
  for i, id in ipairs(ids) do ids[i] = string.sub(id, #scope + 2) end
end
local records = {}
for i = 1, #ids, 1000 do
  local some = redis.call('HMGET', KEYS[2], unpack(ids, i, math.min(i + 999, #ids)))
  for _, record in ipairs(some) do records[#records + 1] = record end
end
return {marker, version, ids, records}
";

/// `ARGV`: id. Answers: marker, record.
const GET: &str = r"
if redis.call('EXISTS', unpack(KEYS)) < #KEYS then return {'', false} end
return {redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[1])}
";

/// Finds attempts in one ring by the head of its entries, newest first. `KEYS`: the ring.
/// `ARGV`: the offset to begin at, how many are wanted; before which position and since which
/// time, each as two halves of 32 bits; then what must be equal, or empty: delivered,
/// delivery, event, tenant. Answers: the offset to go on at, or -1; the entries.
///
/// A script, so that what does not match never crosses the network. What is too short for
/// an entry is answered too: the reader warns of it.
pub(super) const PICK: &str = r"
local offset, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local before_high, before_low = tonumber(ARGV[3]), tonumber(ARGV[4])
local since_high, since_low = tonumber(ARGV[5]), tonumber(ARGV[6])
local parts = {{17, 17, ARGV[7]}, {18, 25, ARGV[8]}, {26, 33, ARGV[9]}, {34, 41, ARGV[10]}}

local function fits(entry)
  if #entry < 41 then return true end
  local high, low, at_high, at_low = struct.unpack('>I4I4I4I4', entry)
  if high > before_high or high == before_high and low >= before_low then return false end
  if at_high < since_high or at_high == since_high and at_low < since_low then return false end
  for _, part in ipairs(parts) do
    if part[3] ~= '' and string.sub(entry, part[1], part[2]) ~= part[3] then return false end
  end
  return true
end

local found = {}
while true do
  local page = redis.call('LRANGE', KEYS[1], offset, offset + 49)
  for i, entry in ipairs(page) do
    if fits(entry) then
      found[#found + 1] = entry
      if #found == wanted then return {offset + i, found} end
    end
  end
  if #page < 50 then return {-1, found} end
  offset = offset + 50
end
";

/// An endpoint failed. `KEYS`: since when endpoints fail, records. `ARGV`: id, when. Answers
/// since when it does.
///
/// Of one whose subscription is not there nothing is kept: an attempt that was under way when
/// it was deleted leaves nothing behind.
const FAILED: &str = r"
local since = tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
if since and since <= tonumber(ARGV[2]) then return string.format('%.0f', since) end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return ARGV[2]
";

/// Endpoints succeeded. `KEYS`: since when endpoints fail. `ARGV`, for each: id, when.
const SUCCEEDED: &str = r"
for i = 1, #ARGV, 2 do
  local since = tonumber(redis.call('HGET', KEYS[1], ARGV[i]))
  if since and since <= tonumber(ARGV[i + 1]) then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return #ARGV / 2
";

/// Adds what is new of what a process has counted. `KEYS`: the sums, what it said last. `ARGV`: how
/// long that is kept, in milliseconds; for each account: name, how much. Answers the sums.
const ACCOUNT: &str = r"
local sums = {}
for i = 2, #ARGV, 2 do
  local name, own = ARGV[i], ARGV[i + 1]
  local said = redis.call('HGET', KEYS[2], name) or '0'
  local more = tonumber(own) - tonumber(said)
  if more > 0 then
    redis.call('HINCRBY', KEYS[1], name, string.format('%.0f', more))
    redis.call('HSET', KEYS[2], name, own)
  end
  sums[#sums + 1] = redis.call('HGET', KEYS[1], name) or '0'
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return sums
";

/// Takes requests of one endpoint's rate. `KEYS`: the time at which its debt is over, in
/// microseconds. `ARGV`: interval, burst, how many are wanted, least debt; times in
/// microseconds. Answers: how many are granted, the debt with them.
///
/// A debt is never more than the burst: a clock that went back, or a rate that was raised,
/// would else hold the endpoint up until a debt is over that it does not have. Lua counts in
/// doubles: microseconds since 1970 fit until the year 2255.
const TAKE: &str = r"
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local wanted, least = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = tonumber(redis.call('GET', KEYS[1]))
local debt = math.min(math.max((kept or 0) - now, least, 0), burst * interval)
local granted = 0
local room = (burst - 1) * interval - debt
if room >= 0 then
  granted = math.min(wanted, math.floor(room / interval) + 1)
  debt = debt + granted * interval
end
if debt > 0 and now + debt ~= kept then
  local over, after_ms = now + debt, math.ceil(debt / 1000)
  redis.call('SET', KEYS[1], string.format('%.0f', over), 'PX', string.format('%.0f', after_ms))
end
return {granted, string.format('%.0f', debt)}
";

/// A replica is there. `KEYS`: replicas by when they said so. `ARGV`: its id, for how many
/// milliseconds that counts. Answers how many there are.
///
/// What is from the future was said before the clock went back.
const REGISTER: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local early = string.format('(%.0f', now - ARGV[2])
local late = string.format('(%.0f', now + ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', early)
redis.call('ZREMRANGEBYSCORE', KEYS[1], late, '+inf')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
";

/// All scripts but `PICK`.
pub(super) struct Scripts {
    pub(super) put: ::redis::Script,
    pub(super) put_all: ::redis::Script,
    pub(super) delete: ::redis::Script,
    pub(super) init: ::redis::Script,
    pub(super) page: ::redis::Script,
    pub(super) get: ::redis::Script,
    pub(super) failed: SmallScript,
    pub(super) succeeded: SmallScript,
    pub(super) account: SmallScript,
    pub(super) take: SmallScript,
    pub(super) register: SmallScript,
}

/// A script of which many calls go out together.
pub(super) struct SmallScript {
    text: &'static str,
    hash: String,
    keys: usize,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let writing = |body: &str| ::redis::Script::new(&format!("{PRELUDE}{body}"));
        Self {
            put: writing(PUT),
            put_all: writing(PUT_ALL),
            delete: writing(DELETE),
            init: writing(INIT),
            page: ::redis::Script::new(PAGE),
            get: ::redis::Script::new(GET),
            failed: SmallScript::new(FAILED, 2),
            succeeded: SmallScript::new(SUCCEEDED, 1),
            account: SmallScript::new(ACCOUNT, 2),
            take: SmallScript::new(TAKE, 1),
            register: SmallScript::new(REGISTER, 1),
        }
    }
}

impl SmallScript {
    fn new(text: &'static str, keys: usize) -> Self {
        let hash = ::redis::Script::new(text).get_hash().to_owned();
        Self { text, hash, keys }
    }

    /// A call with these keys and arguments, for a server that knows the script.
    pub(super) fn by_hash(&self, words: &[String]) -> Cmd {
        self.call("EVALSHA", &self.hash, words)
    }

    /// A call for one that does not, and knows it afterwards.
    pub(super) fn by_text(&self, words: &[String]) -> Cmd {
        self.call("EVAL", self.text, words)
    }

    fn call(&self, name: &str, script: &str, words: &[String]) -> Cmd {
        let mut call = ::redis::cmd(name);
        call.arg(script).arg(self.keys).arg(words);
        call
    }
}
