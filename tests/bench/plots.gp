# SPDX-License-Identifier: MIT
# gnuplot -e "folder='build/bench'" tests/bench/plots.gp: pictures of what tests/bench has measured.
set terminal svg size 860,520 dynamic font "sans,13" background "white"
set datafile missing "-"
set grid
set key left top
set logscale xy
set xlabel "MiB of memory"
set ylabel "ms"
file(kind, line) = folder . "/" . kind . "-" . line . ".dat"
do for [kind in "4k huge"] {
	set output folder . "/copy-runs-" . kind . ".svg"
	set title "until the copy runs, " . kind . " pages"
	plot for [line in "telefork bare fresh memcpy"] file(kind, line) with linespoints lw 2 title line
	set output folder . "/stop-" . kind . ".svg"
	set title "the program stands still, " . kind . " pages"
	plot for [line in "stop fork"] file(kind, line) with linespoints lw 2 title line
	set output folder . "/zygote-" . kind . ".svg"
	set title "a copy of a zygote, " . kind . " pages"
	plot for [line in "copy fork"] file("zygote-" . kind, line) with linespoints lw 2 title line
}
unset logscale
unset ylabel
set terminal svg size 1100,900 dynamic font "sans,12" background "white"
set output folder . "/aims.svg"
set title "measured, as a part of what it may be at most (1: the aim is met)"
set xlabel "ratio, with quartiles"
set key off
set xrange [0:3]
set yrange [*:*] reverse
set lmargin 52
set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb "red"
plot folder . "/rows.dat" using 1:0:2:3:ytic(4) with xerrorbars pt 7 lw 2
