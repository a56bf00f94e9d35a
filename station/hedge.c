#include "hedge.h"

#include "health.h"
#include "log.h"

#include <stdlib.h>

#define RECHECK (50 * MS)      /* a job that nobody can be asked for */
#define RETRY_BAD SECOND       /* every server gave a wrong answer: ask them again */
#define TOKENS_MAX 128.0       /* a burst: everything under way when a server goes silent */
#define TOKENS_PER_ANSWER 0.1  /* in the long run one hedge for ten answers */
#define HEDGE_ANYWAY (700 * MS) /* a read that waits this long is hedged without a token */

bool hedge_init(struct hedge *h, struct server *servers, unsigned n, struct verity *verity,
		struct shared *shared, unsigned hedge_ms)
{
	h->servers = servers;
	h->n_servers = n;
	h->verity = verity;
	h->shared = shared;
	h->tokens = TOKENS_MAX;
	h->next_due = NEVER;
	h->probe_block = NO_BLOCK;
	h->now = now_us();
	h->fetching = calloc(verity->tree_blocks + 1, 1);
	for (unsigned i = 0; i < n; i++)
		health_init(&servers[i], hedge_ms);
	return h->fetching != NULL;
}

/* The best server that has not been asked for this job yet. */
static struct server *pick(struct hedge *h, const struct job *j)
{
	struct server *best = NULL;

	for (unsigned i = 0; i < h->n_servers; i++) {
		struct server *s = &h->servers[i];

		if (s->state != SERVER_UP || s->nbd.asked == ASKS ||
		    (j->asked | j->bad) & 1u << i)
			continue;
		if (!best || health_rank(s, h->now) < health_rank(best, h->now))
			best = s;
	}
	return best;
}

static void set_due(struct hedge *h, struct job *j, uint64_t due)
{
	j->due = due;
	h->next_due = min_u64(h->next_due, due);
}

/* Asks the best server left. False when there is none. */
static bool ask(struct hedge *h, struct job *j)
{
	struct server *s = pick(h, j);
	struct ask what = {
		.sent = h->now,
		.first = j->first,
		.count = j->count,
		.job = (uint32_t)(j - h->jobs),
		.generation = j->generation,
	};

	if (!s || !server_ask(s, &what))
		return false;
	j->asked |= 1u << s->index;
	j->sent[s->index] = h->now;
	j->latest = h->now;
	set_due(h, j, h->now + health_delay(s));
	return true;
}

/* Nothing is under way for this job: ask now, or wait for a server. */
static void ask_or_wait(struct hedge *h, struct job *j)
{
	if (!ask(h, j))
		set_due(h, j, h->now + (j->bad ? RETRY_BAD : RECHECK));
}

static void start(struct hedge *h, struct job *j, uint64_t first, uint32_t count, uint8_t *buf)
{
	j->first = first;
	j->count = count;
	j->buf = buf;
	j->state = JOB_ASKING;
	j->generation++;
	j->asked = j->bad = 0;
	ask_or_wait(h, j);
}

bool hedge_want_tree(struct hedge *h, uint64_t block)
{
	if (verity_known(h->verity, block))
		return true;
	if (h->fetching[block - h->verity->blocks])
		return false;
	/* Parents first: a child that waits holds its job, so its parent must have one. */
	if (!hedge_want_tree(h, verity_parent(h->verity, block)) &&
	    !h->fetching[verity_parent(h->verity, block) - h->verity->blocks])
		return false;
	for (unsigned i = SLOTS; i < JOBS; i++) {
		if (h->jobs[i].state != JOB_FREE)
			continue;
		h->fetching[block - h->verity->blocks] = 1;
		start(h, &h->jobs[i], block, 1, verity_cache(h->verity, block));
		break;
	}
	return false;
}

void hedge_read(struct hedge *h, unsigned slot, uint64_t first, uint32_t count, uint8_t *buf)
{
	hedge_want_tree(h, verity_parent(h->verity, first));
	start(h, &h->jobs[slot], first, count, buf);
}

void hedge_release(struct hedge *h, unsigned slot)
{
	h->jobs[slot].state = JOB_FREE;
}

/* The servers that were asked before the one whose answer counts have been overtaken. */
static void judge(struct hedge *h, struct job *j, struct server *winner)
{
	for (unsigned i = 0; i < h->n_servers; i++) {
		struct server *s = &h->servers[i];

		if (s != winner && j->asked & 1u << i && j->sent[i] < j->sent[winner->index])
			health_overtaken(s, j->sent[i], h->now);
	}
	health_won(winner);
	winner->counts->reads++;
	h->tokens += TOKENS_PER_ANSWER;
	if (h->tokens > TOKENS_MAX)
		h->tokens = TOKENS_MAX;
}

/* The answer in data (or already in the job's buffer) is of this server: is it right? */
static bool take(struct hedge *h, struct job *j, struct server *s, const uint8_t *data)
{
	if (!verity_right(h->verity, j->first, j->count, data)) {
		h->shared->wrong++;
		j->bad |= 1u << s->index;
		j->state = JOB_ASKING;
		health_wrong(s, j->first, 0, h->now);
		ask_or_wait(h, j);
		return false;
	}
	if (data != j->buf)
		memcpy(j->buf, data, (size_t)j->count * BLOCK);
	judge(h, j, s);
	h->probe_block = j->first;
	if (j >= &h->jobs[SLOTS]) {
		j->state = JOB_FREE;
		h->fetching[j->first - h->verity->blocks] = 0;
		h->verity->verified[j->first - h->verity->blocks] = 1;
	} else {
		j->state = JOB_DONE;
		h->done(h->owner, (unsigned)(j - h->jobs));
	}
	return true;
}

/* A tree block became known: answers may have waited for it. They may be tree blocks in turn. */
static void settle_parked(struct hedge *h)
{
	bool again = true;

	while (again) {
		again = false;
		for (unsigned i = 0; i < JOBS; i++) {
			struct job *j = &h->jobs[i];

			if (j->state == JOB_PARKED &&
			    verity_known(h->verity, verity_parent(h->verity, j->first)))
				again |= take(h, j, &h->servers[j->parked_from], j->buf) &&
					 i >= SLOTS;
		}
	}
}

/* An answer to a probe of a demoted server. Its bytes are checked too, they are at hand. */
static void probe_answered(struct hedge *h, struct server *s, const struct nbd_message *m)
{
	uint64_t quick = 0;

	for (unsigned i = 0; i < h->n_servers; i++)
		if (&h->servers[i] != s && h->servers[i].state == SERVER_UP)
			quick = max_u64(quick, health_delay(&h->servers[i]));
	if (!quick) /* it is the only one: no reason to hold anything against it */
		quick = NEVER;
	if (m->error ||
	    (verity_known(h->verity, verity_parent(h->verity, m->answer.first)) &&
	     !verity_right(h->verity, m->answer.first, m->answer.count, m->data))) {
		h->shared->wrong += !m->error;
		health_wrong(s, m->answer.first, m->error, h->now);
		return;
	}
	health_probed(s, h->now - m->answer.sent, quick, h->now);
}

void hedge_answer(void *hedge, struct server *s, const struct nbd_message *m, uint64_t now)
{
	struct hedge *h = hedge;
	struct job *j;

	h->now = now;
	health_answered(s, now - min_u64(now, m->answer.sent));
	if (m->answer.job == NO_JOB) {
		probe_answered(h, s, m);
		return;
	}
	j = &h->jobs[m->answer.job];
	if (j->generation != m->answer.generation || j->state != JOB_ASKING)
		return; /* somebody else was quicker */
	j->asked &= ~(1u << s->index);
	if (m->error) {
		j->bad |= 1u << s->index;
		health_wrong(s, j->first, m->error, now);
		ask_or_wait(h, j);
	} else if (!hedge_want_tree(h, verity_parent(h->verity, j->first))) {
		memcpy(j->buf, m->data, (size_t)j->count * BLOCK);
		j->parked_from = s->index;
		j->state = JOB_PARKED;
		set_due(h, j, now + RECHECK);
	} else if (take(h, j, s, m->data) && j >= &h->jobs[SLOTS]) {
		settle_parked(h);
	}
}

void hedge_up(void *hedge, struct server *s)
{
	struct hedge *h = hedge;

	(void)s;
	h->now = now_us();
	for (unsigned i = 0; i < JOBS; i++)
		if (h->jobs[i].state == JOB_ASKING && !h->jobs[i].asked)
			ask_or_wait(h, &h->jobs[i]);
}

void hedge_down(void *hedge, struct server *s)
{
	struct hedge *h = hedge;

	h->now = now_us();
	for (unsigned i = 0; i < ASKS; i++) {
		const struct ask *a = &s->nbd.asks[i];
		struct job *j = a->cookie && a->job != NO_JOB ? &h->jobs[a->job] : NULL;

		if (!j || j->generation != a->generation || j->state != JOB_ASKING)
			continue;
		j->asked &= ~(1u << s->index);
		if (!j->asked)
			ask_or_wait(h, j);
	}
}

/* One more server for a job that waits, if the budget allows. */
static void job_due(struct hedge *h, struct job *j)
{
	bool may = h->tokens >= 1 || h->now >= j->latest + HEDGE_ANYWAY;

	if (!j->asked) {
		j->bad = 0;
		ask_or_wait(h, j);
		return;
	}
	if (may && pick(h, j)) {
		uint32_t before = j->asked;

		if (ask(h, j)) {
			h->tokens -= h->tokens >= 1 ? 1 : 0;
			h->shared->hedges++;
			for (unsigned i = 0; i < h->n_servers; i++)
				h->servers[i].counts->hedges += before >> i & 1;
			return;
		}
	}
	set_due(h, j, h->now + RECHECK);
}

static void probe(struct hedge *h, struct server *s)
{
	struct ask what = {.sent = h->now, .first = h->probe_block, .count = 1, .job = NO_JOB};

	if (h->probe_block != NO_BLOCK)
		server_ask(s, &what);
}

uint64_t hedge_tick(struct hedge *h, uint64_t now)
{
	uint64_t next = NEVER;

	h->now = now;
	for (unsigned i = 0; i < h->n_servers; i++) {
		if (health_probe_due(&h->servers[i], now))
			probe(h, &h->servers[i]);
		if (h->servers[i].demoted && h->servers[i].state == SERVER_UP &&
		    !h->servers[i].nbd.asked)
			next = min_u64(next, h->servers[i].probe_at);
	}
	if (now < h->next_due)
		return min_u64(next, h->next_due);
	h->next_due = NEVER;
	for (unsigned i = 0; i < JOBS; i++) {
		struct job *j = &h->jobs[i];

		if (j->state == JOB_PARKED && !hedge_want_tree(h, verity_parent(h->verity, j->first)))
			set_due(h, j, now + RECHECK);
		if (j->state != JOB_ASKING)
			continue;
		if (j->due <= now)
			job_due(h, j);
		else
			h->next_due = min_u64(h->next_due, j->due);
	}
	return min_u64(next, h->next_due);
}
