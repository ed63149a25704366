/* SPDX-License-Identifier: MIT */
/*
 * The one table of kinds of state: note type, name, and the fields of one record with their offsets
 * in the structs of image.h. Encoder, decoder, `inspect`, `diff` and docs/format.md all walk it.
 * To add a kind of state: one struct and array in tf_image, one field table and one row in
 * notes_table.c, TELEFORK_FORMAT + 1, and the golden files
 * anew. */
#ifndef TF_IMAGE_NOTES_H
#define TF_IMAGE_NOTES_H

#include "core/base/buf.h"
#include "core/image/image.h"

#define TF_NOTE_OWNER "TELEFORK"

/* Types of our notes: "TF" and a number, far from the NT_* that gdb looks for under any owner.
 * With bit 31 a note is optional: who does not know it skips it. Without, he must refuse. */
#define TF_NOTE(number)  (0x54460000u | (number))
#define TF_NOTE_OPTIONAL 0x80000000u

enum tf_field_type {
	TF_FIELD_U32,
	TF_FIELD_U64,
	TF_FIELD_I32,
	TF_FIELD_HEX32,   /* u32 */
	TF_FIELD_HEX64,   /* u64 */
	TF_FIELD_OCT32,   /* u32, permissions: at most 0777 */
	TF_FIELD_ADDR,    /* u64 below the architecture's user limit (or equal) */
	TF_FIELD_TIME,    /* u64 nanoseconds */
	TF_FIELD_SIGSET,  /* u64, bit n: signal n + 1 */
	TF_FIELD_ENUM,    /* u32 below n_names */
	TF_FIELD_FLAGS,   /* u32, bit i is names[i], no other bit */
	TF_FIELD_STR,     /* const char *; u32 length and bytes, at most TF_MAX_STR */
	TF_FIELD_STR_ARG, /* as STR, must not be empty */
	TF_FIELD_COMM,    /* char[16], terminated, zeros behind */
	TF_FIELD_TYPES,
};

struct tf_field {
	const char *name;
	uint8_t type; /* enum tf_field_type */
	uint8_t n_names;
	uint16_t offset; /* in the record's struct */
	uint16_t count;  /* more than 1: an array inside the struct */
	const char *const *names;
	const char *text; /* for docs/format.md */
};

struct tf_kind {
	uint32_t type; /* of the note */
	uint32_t size; /* of the struct */
	uint32_t max;  /* records, at most; 1: exactly one */
	uint32_t n_fields;
	const struct tf_field *fields;
	size_t items; /* offset in tf_image: of the struct itself (max 1), else of the array pointer
		       */
	size_t count; /* offset in tf_image of the uint32_t count; unused when max is 1 */
	const char *name, *text;
	/* Checks record i, with all before it already checked: NULL, or the rule that is broken. */
	const char *(*check)(const struct tf_image *img, const struct tf_arch *arch, uint32_t i);
};

extern const struct tf_kind tf_kinds[];
extern const size_t tf_n_kinds;

/* How many records of this kind an image has, and record i. */
uint32_t tf_kind_count(const struct tf_kind *k, const struct tf_image *img);
const void *tf_kind_item(const struct tf_kind *k, const struct tf_image *img, uint32_t i);

/* What a decoder refuses: X(NAME, name, text).
 * An error has the name, the text and a byte offset. */
#define TF_IMAGE_RULES(X)                                                                          \
	X(ELF, "elf", "a 64-bit little-endian ELF core file, headers where telefork puts them")    \
	X(MACHINE, "machine", "a known architecture, the same in ELF header and source note")      \
	X(HEAD_SIZE, "head-size", "the head is as long as its headers say, and below the maximum") \
	X(PAGE_SIZE, "page-size", "4096, 16384 or 65536")                                          \
	X(NOTE_ORDER, "note-order", "notes come in the order of the table, each one once")         \
	X(NOTE_UNKNOWN, "note-unknown", "an unknown note is optional and comes last")              \
	X(NOTE_SIZE, "note-size", "a note has the size that its type asks for")                    \
	X(COUNT, "count", "counts are below the maximum and fit into the note")                    \
	X(FIELD, "field", "enumerations, flags and permissions are known ones")                    \
	X(ADDRESS, "address", "addresses are below the architecture's user limit")                 \
	X(CPU, "cpu", "register areas and vector lengths are possible ones")                       \
	X(VDSO, "vdso", "vDSO and vvar are page-aligned ranges, symbols lie inside")               \
	X(MAP_PAGES, "map-pages", "mappings are page-aligned and not empty")                       \
	X(MAPS_SORTED, "maps-sorted", "mappings are sorted and do not overlap")                    \
	X(MAP_DATA_END, "map-data-end", "data_end is page-aligned and inside its mapping")         \
	X(MAP_KIND, "map-kind", "pages of hugetlbfs are whole; protection keys are below 16")      \
	X(MAP_LIMIT, "map-limit", "mappings end at or below source.max_map_end")                   \
	X(TAGS, "tags",                                                                            \
		"tags are of whole pages, sorted, of private memory that has tags, on aarch64")    \
	X(OBJECTS, "objects",                                                                      \
		"objects have a name and a size; what leads to one is shared and inside the list") \
	X(FDS_SORTED, "fds-sorted", "descriptors are not negative, unique and ascending")          \
	X(FD_SAME, "fd-same",                                                                      \
		"a duplicate is one of a lower descriptor that is there, or of a stream")          \
	X(SIGACTIONS, "sigactions", "all 64 signal actions or none")                               \
	X(PENDING, "pending", "a pending signal has a number, and siginfo says the same")          \
	X(PROCESS, "process", "limits, times and scores of a process are possible ones")           \
	X(RIGHTS, "rights", "groups of the rights follow each other, and are there")               \
	X(CAPABILITIES, "capabilities", "what is effective or ambient is permitted")               \
	X(FILTERS, "filters", "filters have 1 to 4096 instructions that are there, chains follow") \
	X(ATTRIBUTES, "attributes",                                                                \
		"all threads', of a known process, or none; values that a thread can have")        \
	X(TIMERS, "timers", "timers have ascending ids, known clocks, a signal and a time")        \
	X(WAITS, "waits", "who waits is a thread, once, in order, and for a time")                 \
	X(SIGNATURES, "signatures",                                                                \
		"signed words are aligned and in writable memory; at most one register")           \
	X(LATER, "later",                                                                          \
		"memory that comes later is sorted, page-aligned, private, and no part of a file") \
	X(KNOWN, "known",                                                                          \
		"mappings that need not come are in order, private, and of a named file")          \
	X(STAGED, "staged",                                                                        \
		"memory that came before is sorted, page-aligned, private, and of no file")        \
	X(HELD, "held", "words of locks that are held are sorted, aligned, and in such memory")    \
	X(THREADS, "threads", "at least one thread, tids positive, unique, at most 4194304")       \
	X(AUXV, "auxv", "pairs that end with AT_NULL and have no other")                           \
	X(REGSETS, "regsets", "each thread has its general registers; no set twice, few, small")   \
	X(SEGMENTS, "segments", "segments cover the mappings exactly, in order, page-aligned")     \
	X(SEGMENT_DATA, "segment-data", "bytes end at or below data_end; vvar has none")           \
	X(DERIVED, "derived", "bytes that follow from others are what they must be")

enum tf_image_rule {
#define X(name, rule, text) TF_RULE_##name,
	TF_IMAGE_RULES(X)
#undef X
		TF_RULES,
};

/* "name: text" of each rule. */
extern const char *const tf_image_rule_text[TF_RULES];

/* Puts all notes of img. Measuring, writing and comparing: see tf_writer. */
void tf_notes_put(struct tf_writer *w, const struct tf_image *img);

/* Reads all notes from the reader's present limit into img (arena: a) and checks what one note or
 * one record can break. *ret_known: offset at which the notes of tf_notes_put() end; what follows
 * are optional unknown ones. 0 or the reader's code; TELEFORK_E_VERSION, or a register check's
 * error, is explained in e. */
int tf_notes_get(struct tf_reader *r, struct tf_image *img, struct tf_arena *a,
	const struct tf_arch *arch, size_t *ret_known, struct tf_err *e);

/* --- showing (notes_print.c; stdio, not for a forked child) --- */

/* The names of the flags or of the enumeration, number, text … of a field's element i as text.
 * Control characters are shown as \xNN. Returns what snprintf would. */
int tf_field_text(const struct tf_field *f, const void *item, unsigned i, char *buf, size_t n);

/* The numeric value of an element of any field but strings. */
uint64_t tf_field_number(const struct tf_field *f, const void *item, unsigned i);

/* The string of a STR, STR_ARG or COMM field (not sanitised), NULL of any other. */
const char *tf_field_string(const struct tf_field *f, const void *item);

/* The tables of kinds, fields and rules as markdown, for docs/format.md. Returns the length. */
size_t tf_notes_markdown(char *buf, size_t n);

#endif
