#include "health.h"

#include "log.h"

#include <inttypes.h>

#define DELAY_MIN (20 * MS)
#define DELAY_MAX (300 * MS)
#define QUANTILE_STEP_MIN 200 /* microseconds */
#define LOST_WINDOW (10 * SECOND)
#define PROBE_EVERY (400 * MS)
#define PROBES_MIN 3u
#define PROBES_MAX 24u
#define FLAPPING (60 * SECOND)
#define AVOID_MIN (60 * SECOND)
#define AVOID_MAX (3600 * SECOND)
#define LOG_EVERY (10 * SECOND)

unsigned health_rank(const struct server *s, uint64_t now)
{
	if (now < s->avoided_until)
		return 2;
	return s->demoted ? 1 : 0;
}

/*
 * Twice what 95 of 100 answers need: with healthy servers about one read in a hundred is asked for
 * twice, so hedging costs next to nothing.
 */
uint64_t health_delay(const struct server *s)
{
	return max_u64(DELAY_MIN, min_u64(DELAY_MAX, 2 * s->quantile));
}

void health_init(struct server *s, unsigned hedge_ms)
{
	s->quantile = hedge_ms * MS / 2;
	s->need_probes = PROBES_MIN;
}

/*
 * The quantile is followed by small steps, up 19 times as far as down, so that it rests where one
 * answer in 20 is above it. It needs no memory of the answers.
 */
void health_answered(struct server *s, uint64_t latency)
{
	uint64_t step = max_u64(QUANTILE_STEP_MIN, s->quantile / 16);

	if (latency > s->quantile)
		s->quantile = min_u64(s->quantile + step * 19 / 20, DELAY_MAX);
	else
		s->quantile -= min_u64(s->quantile, step / 20);
	s->latency = s->latency ? s->latency - s->latency / 8 + latency / 8 : latency;
	s->counts->latency_us = s->latency;
}

static void demote(struct server *s, uint64_t now, const char *why)
{
	if (s->demoted)
		return;
	/* A server that goes back and forth has to prove itself for longer each time. */
	if (s->demoted_at && now < s->demoted_at + FLAPPING)
		s->need_probes = s->need_probes * 2 < PROBES_MAX ? s->need_probes * 2 : PROBES_MAX;
	else
		s->need_probes = PROBES_MIN;
	s->demoted = true;
	s->demoted_at = now;
	s->good_probes = 0;
	s->probe_at = now + PROBE_EVERY;
	log_line(LOG_NOTICE, "%s is %s, others are asked first", s->name, why);
}

/*
 * Silence since the read was sent means a server that hangs or is gone: demoted at once, since
 * every further read would pay the hedge delay. One that talks but was late once may have had a
 * bad moment.
 */
void health_overtaken(struct server *s, uint64_t sent, uint64_t now)
{
	bool again = s->lost && now < s->lost_at + LOST_WINDOW;

	s->lost = again ? s->lost + 1 : 1;
	s->lost_at = now;
	if (s->last_heard <= sent)
		demote(s, now, "silent");
	else if (s->lost >= 2)
		demote(s, now, "slow");
}

void health_won(struct server *s)
{
	s->lost = 0;
}

void health_wrong(struct server *s, uint64_t block, uint32_t error, uint64_t now)
{
	if (now >= s->wrong_logged + LOG_EVERY || !s->wrong_logged) {
		if (error)
			log_line(LOG_ERROR, "%s cannot read block %" PRIu64 " (error %" PRIu32 ")",
				 s->name, block, error);
		else
			log_line(LOG_ERROR,
				 "%s sent a wrong block %" PRIu64 " (%" PRIu64 " so far), avoided",
				 s->name, block, s->counts->wrong + 1);
		s->wrong_logged = now;
	}
	s->counts->wrong += !error;
	if (now >= s->avoided_until) { /* a second time, not the rest of the first */
		bool recent = s->wrong_at && now < s->wrong_at + AVOID_MAX;

		s->avoid_for = recent ? min_u64(s->avoid_for * 2, AVOID_MAX) : AVOID_MIN;
		s->avoided_until = now + s->avoid_for;
	}
	s->wrong_at = now;
}

void health_probed(struct server *s, uint64_t latency, uint64_t quick, uint64_t now)
{
	if (!s->demoted)
		return;
	s->good_probes = latency <= quick ? s->good_probes + 1 : 0;
	if (s->good_probes < s->need_probes)
		return;
	s->demoted = false;
	s->demoted_at = now;
	s->lost = 0;
	log_line(LOG_NOTICE, "%s answers quickly again", s->name);
}

bool health_probe_due(struct server *s, uint64_t now)
{
	if (!s->demoted || s->state != SERVER_UP || s->nbd.asked || now < s->probe_at)
		return false;
	s->probe_at = now + PROBE_EVERY;
	return true;
}
