-- Constants of all files. Where a constant is named, its value stands in the script that is sent: as locals they would be
-- made again by each call. So a name in capitals is declared once, here or where it is needed, with a plain number or text.

-- The largest integer that scripts take, 2^53 - 1: a double holds all up to it exactly.
local MAX_INTEGER = 9007199254740991
-- As in algorithm/mod.rs: above limits and capacities, and the most that a count may become.
local LIMIT_BOUND = 2251799813685248 -- 2^51
local COUNT_BOUND = 4503599627370496 -- 2^52
-- Every debt of a bucket is paid off sooner (us).
local LONGEST = 4503599627370496 -- 2^52

-- Of a bucket's short value: above its debt; above its token, and the time since it was full; above its gain, which has a byte with
-- the unit; and until when the key lives, in blocks of time (us; ms) from the state's on, of which so many are told apart.
local SHORT_DEBT, SHORT_NUMBER, GAINS = 281474976710656, 1099511627776, 64 -- 2^48, 2^40
local KEPT_BLOCK, KEPT_MILLIS, KEPT_BLOCKS = 16000000, 16000, 65536

-- What a call may need, by number: the algorithms, and what is remembered beside their states.
local FIXED_WINDOW, SLIDING_WINDOW, TOKEN_BUCKET, SLIDING_LOG, CONCURRENCY, CALENDAR_WINDOW = 1, 2, 3, 4, 5, 6
local RECORDS, OPERATIONS, RESERVATIONS, LEASES = 7, 8, 9, 10

local CHARGE, PEEK, RESET, REFUND, RESERVE, SETTLE, CANCEL = 0, 1, 2, 3, 4, 5, 6
local ACQUIRE, RENEW, RELEASE, DEBIT = 7, 8, 9, 10

local ADMIT, DENY, NEVER, UNSEEN = 0, 1, 2, 3
-- What stands in a step's way other than a denial.
local FAILED, FOREIGN, EXPIRED, CONFLICT, OPERATION_CONFLICT, STRANGER, OTHER_VERSION = 0, 1, 2, 3, 4, 5, 6
-- What is known of an earlier answer to the same request.
local NO_REPLAY, REPLAY_HELD, REPLAY_SETTLED, REPLAY_DONE = 0, 1, 2, 3
-- Where a charge that has a record stands.
local HELD, SETTLED, CANCELLED, REFUNDED = 0, 1, 2, 3
