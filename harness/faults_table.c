/* SPDX-License-Identifier: MIT */
/* See faults_table.h. */
#include "harness/faults_table.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct {
	enum tf_party party;
	const char *here, *there; /* "": no record yet; NULL: any */
	const char *allowed;
} deaths[] = {
	{TF_PARTY_SENDER, "", NULL, "here"},
	{TF_PARTY_SENDER, "sending", NULL, "here"},
	{TF_PARTY_SENDER, "committing", "prepared", "stopped: here, stopped: there"},
	{TF_PARTY_SENDER, "committing", NULL, "stopped: there, there"},
	{TF_PARTY_SENDER, "moved", NULL, "there"},
	{TF_PARTY_SESSION, "", NULL, "here"},
	{TF_PARTY_SESSION, "sending", NULL, "here"},
	{TF_PARTY_SESSION, "committing", "prepared", "here"},
	{TF_PARTY_SESSION, "committing", NULL, "there"},
	{TF_PARTY_SESSION, "moved", NULL, "there"},
	{TF_PARTY_RECEIVER, "", NULL, "here"},
	{TF_PARTY_RECEIVER, "sending", "prepared", "here, stopped: here"}, /* if that had left */
	{TF_PARTY_RECEIVER, "sending", NULL, "here"},
	{TF_PARTY_RECEIVER, "committing", "prepared", "stopped: here"},
	{TF_PARTY_RECEIVER, "committing", "committed", "stopped: there"},
	{TF_PARTY_RECEIVER, "committing", "running", "stopped: there, there"},
	{TF_PARTY_RECEIVER, "moved", NULL, "there"},
};

const char *tf_table_death(enum tf_party party, const char *here, const char *there)
{
	for (size_t i = 0; i < sizeof(deaths) / sizeof(*deaths); i++)
		if (deaths[i].party == party && !strcmp(deaths[i].here, here) &&
			(!deaths[i].there || !strcmp(deaths[i].there, there)))
			return deaths[i].allowed;
	return NULL;
}

const char *tf_table_break(int message, bool for_good)
{
	if (message < 4) /* greeting, welcome, image, prepared */
		return "here";
	if (message == 4) /* commit */
		return for_good ? "stopped: here" : "here";
	return for_good ? "stopped: there" : "there"; /* running */
}

bool tf_table_has(const char *list, const char *verdict)
{
	char wanted[40], all[80];

	snprintf(wanted, sizeof(wanted), ", %s,", verdict);
	snprintf(all, sizeof(all), ", %s,", list);
	return strstr(all, wanted);
}
