"""Every bound of the server, with its unit (last in the name) and the reason for the number.

Nothing here is read from the environment: what an operator may tune is in `config.py`. A bound that is passed
gives a clear 4xx or 503 to the client, never a hang and never a half-done act.
"""

# --- What a client may send -------------------------------------------------------------------------------
# The largest honest body (an order of 20 lines with client context) is under 4 KiB
BODY_BYTES_MAX = 64 * 1024
# Scans of one upload: a gate's busy hour offline; 40 ms of work, spread over its answer
UPLOAD_SCANS_MAX = 500
# So many scans, each field as long as it may be, are 430 KB; honest ones 170 KB
UPLOAD_BYTES_MAX = 512 * 1024
STREAM_FRAME_BYTES_MAX = 4 * 1024  # one scan is under 400 bytes
# Bytes of scans taken in one turn of the event loop: 300 scans, 20 ms; the next ones wait
TURN_COST = 192 * 1024
# What any other request costs, in bytes of scans: aiohttp's way takes some six times as long
REQUEST_COST = 4 * 1024
SCAN_HEAD_BYTES_MAX = 4 * 1024  # of a scan that is refused unread; an honest head is under 700
HELD_BYTES = 8 * 1024  # what a connection brings while it stands in line, before it is not read any further
# Held in line: past it a connection with more than HELD_BYTES is cut, so that 128 MiB are never passed
LINE_BYTES_MAX = 64 * 1024 * 1024
LINE_WAIT_S_MAX = 0.4  # for a turn; past it scans are refused at once: who stands at a gate waits a second
TURNED_AWAY_MAX = 128  # requests refused unread in one turn: 3 ms
# An honest body comes with its head; a client that dribbles must not hold a place for ever
BODY_READ_S_MAX = 10.0
# From a head's first byte to its last: it is one packet, and a slow phone's still takes no second
HEAD_READ_S_MAX = 10.0
ANSWER_TAKEN_S_MAX = 60.0  # who takes less than this of a waiting answer in so long is gone, or means to stay
ANSWER_TAKEN_BYTES_MIN = 32 * 1024  # half a KB a second: the slowest network that a page is of any use on
# A body right behind its head comes within a packet; then it is waited for as any other
BODY_REST_S_MAX = 0.05
ORDER_LINES_MAX = 20  # one script holds all lines at once; 20 keys stay far from blocking Redis for a ms
ORDER_UNITS_MAX = 50  # tickets of one order; they are issued in one transaction, which stays under 50 ms
WECHAT_CODE_CHARS_MAX = 512  # a code of a WeChat login is 32; it becomes a part of an address
IDEMPOTENCY_KEY_CHARS_MAX = 64  # a UUID is 36; the key becomes a Redis key name
SCAN_ID_CHARS_MAX = 64  # a UUID is 36; Redis keeps it for a day or two
TERMINAL_ID_CHARS_MAX = 64  # serial numbers of handheld scanners are under 40
QR_TOKEN_CHARS_MAX = 512  # a token is 87; a scanner that reads two codes at once is still told QR_MALFORMED
LOGIN_NAME_CHARS_MAX = 64
# NIST SP 800-63B asks for 8 at least; staff passwords are shared orally, so a bit more
PASSWORD_CHARS_MIN = 10
PASSWORD_CHARS_MAX = 256  # Argon2id hashes any length; the bound keeps a login from being a way to burn CPU
CODE_CHARS_MAX = 32  # function and venue codes, SKUs: they are keys, labels are for people
NAME_CHARS_MAX = 80  # names and labels; a gate display shows about 40 characters
ORDERS_PAGE_MAX = 100  # GET /my/orders
TICKETS_PAGE_MAX = 500  # GET /my/tickets: 10 full orders
REPORT_PAGE_MAX = 1_000  # GET /reports/redemptions as JSON
REPORT_PAGE_DEFAULT = 100
REPORT_WINDOW_DAYS_MAX = 366  # a year and a leap day: longer questions belong to a warehouse
# About 4 MiB of JSON, held as a whole; past it a shorter window is asked for
REPORT_SUMMARY_ROWS_MAX = 20_000
REPORT_FIGURES_ROWS_MAX = 10_000  # a year of hours, about 0.7 MiB of JSON; past it a longer unit is asked for
REPORT_CSV_CHUNK_ROWS = 1_000  # rows a chunk of the streamed CSV: ~150 KiB, so memory stays flat
REPORT_WRITE_S_MAX = 60.0  # a client that takes none of a chunk for so long is gone
AUDIT_ENTRIES_MAX = 100_000  # of the trail, in one listing: 50 MiB of memory, and years of changes
PRICE_FEN_MAX = 100_000_000  # one million yuan a unit; WeChat Pay's own ceiling is far lower
PAYMENT_FEN_MAX = PRICE_FEN_MAX * ORDER_UNITS_MAX  # what the dearest order costs
SELLABLE_MAX = 100_000_000
ENTITLEMENT_QUANTITY_MAX = 1_000  # a year pass with two uses a day is 730
PRODUCT_FUNCTIONS_MAX = 16  # remaining uses of a ticket are one short string in its hash
VALID_DAYS_MAX = 3_660

# --- Time ---------------------------------------------------------------------------------------------------
QR_TTL_MS_MAX = 60_000  # US-001: "Rotating QR token (<= 60 s)": a screenshot is stale before it is sold on
WEBHOOK_SKEW_S_MAX = 300  # a signed notification is accepted for +-300 s, as WeChat Pay does with its own
# A verdict is repeated to its scan_id for a day, as long as a gate may be offline, and an hour: so a scan that may
# still be uploaded finds its first verdict, and what its QR was spent for, also at the window's very end
SCAN_REPLAY_S = 25 * 3600
SAID_TURNS = 3  # Redis keeps what scan_ids were told in hashes that take turns, and empties the oldest
SAID_TURN_S = SCAN_REPLAY_S // (SAID_TURNS - 1)  # so that a verdict just told outlives SCAN_REPLAY_S
# A gate's clock and ours: with NTP far less; a minute would let a QR live twice as long
SCAN_SKEW_S_MAX = 5.0
IDEMPOTENCY_REPLAY_S = 24 * 3600  # the same for an order's Idempotency-Key (Postgres keeps it for ever)
REDIS_CALL_S_MAX = 2.0  # a healthy script takes under 5 ms; past this the caller is told 503 and retries
REDIS_CONNECT_S_MAX = 2.0
REDIS_ACK_MS_MAX = 1_000  # WAITAOF for a replica: past it the scan is "not acknowledged" (503), to be retried
POSTGRES_CALL_S_MAX = 5.0  # settlement and reads; the gateway repeats a notification after 15 s
POSTGRES_USE_S_MAX = 5.0  # all statements of one transaction or look together: then its connection is cut
# Amid a transaction, then Postgres frees its locks; rehydrating scans Redis meanwhile
POSTGRES_STANDSTILL_S_MAX = 300.0
# So long a statement runs on, and keeps its locks, when whoever sent it is gone
POSTGRES_ABANDONED_S_MAX = 2.0
POSTGRES_BULK_S_MAX = 60.0  # flushes, rehydrate pages and reports
MIGRATION_S_MAX = 600.0  # building an index on a large table
BACKUP_S_MAX = 6 * 3600.0  # a hundred million verdicts; a program that hangs must end
PROGRAM_VERSION_S_MAX = 20.0  # `pg_dump --version`: a cold disk is slow
POSTGRES_CONNECT_S_MAX = 3.0
POSTGRES_ACQUIRE_S_MAX = 2.0  # a pool that is empty for so long means overload: 503 at once, not a queue
GATEWAY_CALL_S_MAX = 5.0  # one call to a payment gateway
# All sendings of one call to WeChat: a buyer waits for it, and longer they would not
WECHAT_TOTAL_S_MAX = 8.0
WECHAT_CONNECT_S_MAX = 2.0  # a host that is away leaves time for the other one
WECHAT_SENDINGS_MAX = 3  # the main host, the backup, and the main host once more
LAUNCH_LEFT_S_MIN = 60  # a prepared payment is handed out again while a buyer has so long to launch it
PREPAY_LIFE_S = 2 * 3600  # WeChat Pay: prepay_id and code_url
H5_LIFE_S = 5 * 60  # WeChat Pay: h5_url
GUEST_ID_BYTES = 16  # 128 random bits: no two guests are ever the same buyer
# Nothing but the token knows a guest: it outlives the season in which tickets are good
GUEST_TOKEN_S = 400 * 24 * 3600
WECHAT_LOGINS_MAX = 200  # codes being exchanged at a time: at 50 ms each, 400 logins a second
# To the host that exchanges codes: a flood of logins takes no connection from payments
LOGIN_CONNECTIONS_MAX = 20
PREPARE_S_MAX = 15.0  # a switch of channel: close, ask, prepay; the buyer looks at a spinner meanwhile
NOTIFY_ANSWER_S_MAX = 4.5  # WeChat Pay gives up on an answer after 5 s
CERTIFICATE_ENDS_S = 30 * 24 * 3600  # a certificate's end is told so long before: a new one takes days
SIMULATED_HANG_S = 15.0  # a call that the WeChat simulator leaves hanging: then it is cut
SIMULATED_HOLD_S_MAX = 60.0  # a call that a test holds back in the simulator ends by itself
SIMULATED_ANSWER_S_MAX = 5.0  # WeChat Pay takes a later answer to a notification for none
DEADLINE_MS_MAX = 60_000  # X-Deadline-Ms: all bounds of ours are shorter; more is a mistake of unit
READ_OWN_WRITE_S_MAX = 3.0  # how long settlement waits for the flusher to bring the order's row
TICKET_LOAD_S_MAX = 2.0  # how long a scan of a ticket unknown to Redis waits for the flusher's cursor
DIRECTORY_POLL_S = 0.5  # catalog, venues and operators are followed "within a second"
BACKLOG_POLL_S = 0.5
SHUTDOWN_DRAIN_S_MAX = 20.0  # SIGTERM: finish what was begun, flush, leave; Kubernetes kills after 30 s
# A gate that is silent so long is asked whether it lives, and has half as long to say so
STREAM_PING_S = 20.0
STREAM_CLOSE_S_MAX = 2.0  # for the answers under way and the gate's goodbye, when its socket is closed
# Connections that wait to be taken: all gates of a large venue, when a server comes back
LISTEN_BACKLOG = 1_024
KEYS_READ_S_MAX = 5.0  # files of a few KiB; a disk that hangs must not keep the next SIGHUP from being heard
PASSWORD_WAIT_S_MAX = 5.0  # for a place to hash
WORKERS_MAX = 64  # `serve --workers`: more cores than one Redis can keep busy
WORKER_START_S_MAX = 30.0  # a worker that does not serve by then hangs; one second is usual
# Running requests have 10 s; then the jobs flush, in what is left of Kubernetes' 30
WORKERS_STOP_S_MAX = 12.0
WORKER_RETRY_S_MIN, WORKER_RETRY_S_MAX = 0.1, 5.0  # pause before a worker that died is started again
WORKER_STEADY_S = 60.0  # one that served for so long died of something new: no long pause

# --- How often ------------------------------------------------------------------------------------------------
# Free ones may come at once; each that follows waits, and one is forgotten every so many seconds. Scans have no such
# bound: a venue sits behind one address, and a gate that is refused stands still.
# Failed logins of one account from one address: people mistype, and try the old password
LOGIN_TRIES_FREE = 5
# Of one account from everywhere: the staff of a venue have a handful of addresses
LOGIN_ACCOUNT_TRIES_FREE = 20
# Of all accounts from one address: a shift of 50 behind it, each of them wrong twice
LOGIN_ADDRESS_TRIES_FREE = 100
# On a device where the account logged in before, beside all others; beyond them it is a stranger's
LOGIN_DEVICE_TRIES_FREE = 10
DEVICE_ID_BYTES = 16  # 128 random bits: nobody can fill the bucket of a device whose cookie they do not have
# Such a device is known for so long behind the latest login on it: longer than a leave
DEVICE_S = 30 * 24 * 3600
DEVICE_ACCOUNTS_MAX = 8  # that one device remembers: who shares it in shifts; its cookie stays under 1 KiB
# Who was told to wait is refused without Redis: briefly, so that `operator unblock` is felt
LOGIN_HELD_REMEMBERED_S = 1.0
LOGINS_HELD_MAX = 4_096  # of them remembered: a few hundred KiB; past it all are asked about again
LOCAL_BUCKETS_MAX = 10_000  # counted in the process while Redis is away: 2 MiB; past it the oldest half goes
LOGIN_PAUSE_S_MIN = 1.0  # after the first too many; it doubles with each
# Longer would lock staff out at whoever's will; 1,440 guesses a day find no password of 10
LOGIN_PAUSE_S_MAX = 60.0
# A failure is forgotten: as slow as the longest pause, so the longest pause is what stays
LOGIN_FORGET_S = 60.0
LOGIN_ADDRESS_FORGET_S = 6.0  # the same by address: 10 guesses a minute, whatever accounts are tried
LOGIN_HOME_S = 30 * 24 * 3600  # an account is at home where it logged in lately: longer than a leave
# Codes that WeChat refuses, or has not answered yet, by address: honest ones it hardly ever does
WECHAT_CODES_FREE = 200
WECHAT_CODES_FORGET_S = 1.0  # WeChat's own bound is per app: one address must not use it up for all buyers
# Tokens of one ticket: it renews once in 50 s, on a few devices, and at each look at the page
QR_SHOWN_FREE = 30
QR_SHOWN_FORGET_S = 2.0  # 30 a minute for ever
# Of gateways about one order: its page asks every 6 s, on two devices; its buyer taps "pay" beside it
INQUIRIES_FREE = 10
INQUIRIES_FORGET_S = 2.0  # each costs a call to WeChat

# --- Queues and batches ---------------------------------------------------------------------------------------
SCAN_QUEUE_MAX = 4_096  # scans waiting for a shard: half a second of work at 8,000/s, then 503 at once
QUEUED_S_MAX = 2.0  # a scan that is not sent by then is refused: Redis hangs, and its gate has given up
# Three quarters of one call: live scans find a place in it.
UPLOADED_SCANS_AT_ONCE_MAX = 48  # of all uploads of a process, in the gate's queue
UPLOADS_AT_ONCE_MAX = 32  # uploads of a process being judged: 16 MiB of bodies; one more is told 503 at once
UPLOAD_WAIT_S_MAX = 10.0  # what of an upload found no place by then is told OVERLOADED, each scan for itself
UPLOAD_RETRY_S = 0.1  # a queue that is full is empty after half a second
# Of one gate's socket under way: a turnstile has one or two, a collector of many gates more
STREAM_SCANS_MAX = 64
# Larger calls make both sides wait in turn: the server for the answers of one, then Redis while they are given out.
SCAN_BATCH = 64  # scans of one script call: 2 ms of Redis
# A turn of the event loop brings as many scans as there are gates, and takes two calls: in a flood they must be larger.
SCAN_BATCH_MAX = 512  # scans of one call when so many wait: 16 ms of Redis
SCAN_CALLS_IN_FLIGHT_MAX = 2  # a shard's calls under way: one is being judged while the next is being written
ORDER_QUEUE_MAX = 2_048  # orders waiting for stock: half a second of work at 4,000/s, then 503 at once
ORDER_BATCH_MAX = 64  # orders of one script call: under 3 ms of Redis, so gates are not kept waiting
PASSWORD_HASHES_AT_ONCE_MAX = 2  # Argon2id takes 19 MiB and 50 ms each
# Logins that wait for a place: 2 s of hashing; a flood of wrong ones is told 503 at once
PASSWORD_QUEUE_MAX = 64
PASSWORD_QUEUE_STRANGERS_MAX = 32  # of them, where the account never logged in: the rest is kept for staff
CONNECTIONS_MAX = 8_192  # of clients to one process: the gates and buyers of a large venue; some KiB each
FILES_KEPT = 512  # open files that are not clients': connections to databases and gateways, logs, metrics
# Being counted or hashed; more at once would only keep Redis from counting them in time
LOGINS_AT_ONCE_MAX = 128
LOGINS_STRANGERS_MAX = 64  # of them, on devices where the account never logged in
LOGINS_FROM_MAX = 16  # of them, from one address or on one known device: 0.4 s of hashing
FLUSH_BATCH_MAX = 5_000  # stream entries of one transaction: ~100 ms and a few MiB, so a crash repeats little
FLUSH_ORDERS_MAX = 500  # orders of one transaction: free ones are issued there, up to 25,000 tickets
FLUSH_WAIT_S = 0.25  # an idle flusher looks up so often, to see that it is to stop
# Wait so long after the first entry, so that a busy stream is written in larger batches
FLUSH_LINGER_S = 0.02
FLUSH_BUSY_ENTRIES_MIN = 200  # a flush of so many entries says that the stream is busy
FLUSH_BUSY_LINGER_S = 0.2  # then wait so long: a flush costs as much as 200 entries, whatever it writes
OUTBOX_BATCH_MAX = 500
OUTBOX_POLL_S = 0.05
EXPIRE_BATCH_MAX = 200
EXPIRE_POLL_S = 0.5
# An order waits so long for its number at WeChat to be closed; then its units are free
EXPIRE_CLOSING_S_MAX = 120
RECONCILE_BATCH_MAX = 20  # orders a round: with every gateway hanging, a round ends within half a minute
ASKED_AT_ONCE_MAX = 4  # calls of a job to a gateway at a time; each may settle, which takes a connection
RECONCILE_POLL_S = 10.0
ATTEMPTS_TRIED_MAX = 3  # steps of one preparation: close the old number, take a new one, and one surprise
CLOSE_BATCH_MAX = 20  # numbers to close a round
CLOSE_POLL_S = 1.0  # a buyer who cancels may still have the payment dialog open
CLOSE_RETRY_S = 10  # a number that could not be closed is tried again
RECONCILE_AFTER_S = 60  # ask the provider about an order that stays unpaid so long
GUARD_POLL_S = 0.5  # how often the loading of Redis is checked
RETRY_S_MIN, RETRY_S_MAX = 0.1, 2.0  # back-off of loops after a failure, with jitter
REHYDRATE_PAGE = 1_000  # tickets a page: about 1 MiB of Redis commands
CHECK_PAGE = 2_000  # orders, tickets or Redis keys a page of `gateline check`: a few MiB of memory
CHECK_CATCH_UP_S_MAX = 10.0  # how long a check waits for flusher and outbox; normally they are 0.1 s behind
CHECK_ASKS = 3  # how often a page of Redis is asked for before a check gives up
CHECK_LOOKS = 3  # a suspicion is a breach when it holds in so many looks: what is under way settles in one
CHECK_LOOK_PAUSE_S = 0.1  # between two looks: longer than a flush, so that they do not see the same moment
CHECK_EXAMPLES_MAX = 5  # of each kind of breach: enough to see a pattern
CASHIER_SESSIONS_MAX = 10_000  # the gateway simulator keeps so many payments, then forgets the oldest
SIMULATED_NOTIFICATIONS_MAX = 64  # the WeChat simulator's deliveries under way at once
GARBAGE_OBJECTS = 20_000  # made and not freed before a collection: some MiB, a few hundred scans under way
PLACES_KNOWN_MAX = 10_000  # triples of function, venue and terminal that were found well spelled
# Of a head that is remembered; a gate's is under 700, and 10,000 of them are 20 MiB
SENDER_BYTES_MAX = 2 * 1024
TOKEN_CACHE_MAX = 10_000  # verified tokens remembered until they expire; past it the oldest half goes
