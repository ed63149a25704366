/* SPDX-License-Identifier: MIT */
/* Files that are part of telebed, as strings. */
	.section .rodata
	.global tf_report_page
tf_report_page:
	.incbin TF_REPORT_PAGE
	.byte 0
	.global tf_report_schema
tf_report_schema:
	.incbin "docs/report.schema.json"
	.byte 0
	.section .note.GNU-stack, "", %progbits
