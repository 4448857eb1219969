#!/usr/bin/env perl
# mutants.pl LIST TREE [PATTERN]: writes the mutants of LIST into the sources under TREE, and to standard output a line
# "INDEX NAME OP LEVEL BACKEND PASS" for each whose name matches PATTERN.
#
# Fails where a listed text does not occur exactly once, or where an op lacks a mutant of a pass on a backend.
use strict;
use warnings;

my ($list, $tree, $pattern) = @ARGV;

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}

# Words may be wrapped differently in the source.
sub regex {
    my ($text) = @_;
    return join '\s+', map { quotemeta } split /\s+/, $text, -1;
}

my (@mutants, %names);
for my $line (split /\n/, slurp($list)) {
    next if $line =~ /^\s*(#|$)/;
    if ($line =~ /^\s+(.*)$/) {
        die "$list: a line of code before the first mutant\n" unless @mutants;
        my $text = \$mutants[-1]{text};
        $$text = defined $$text ? "$$text\n$1" : $1;
        next;
    }
    my ($name, $op, $backend, $pass, $file, @more) = split ' ', $line;
    die "$list: expected NAME OP BACKEND PASS FILE: $line\n"
        unless defined $file && !@more && $backend =~ /^(reference|both|cpu(:\w+)?)$/ && $pass =~ /^(forward|backward)$/;
    die "$list: two mutants are called $name\n" if $names{$name}++;
    push @mutants, { name => $name, op => $op, backend => $backend, pass => $pass, file => $file };
}

# Every registered op has a mutant of each pass that it has on each backend.
my ($register) = slurp("$tree/src/ops/mod.rs") =~ /^register! \{(.*?)^\}/ms or die "no list of ops\n";
my %rooms = reverse $register =~ /^\s*(\w+)::(\w+),/mg;
my @ops = sort keys %rooms;
for my $op (@ops) {
    my $only_infers = slurp("$tree/src/ops/$rooms{$op}/mod.rs") =~ /fn only_infers\b/;
    for my $pass ('forward', $only_infers ? () : 'backward') {
        for my $backend ('reference', 'cpu') {
            next if grep { $_->{op} eq $op && $_->{pass} eq $pass && $_->{backend} =~ /^($backend|both)/ } @mutants;
            die "$list: no mutant of $op, $pass, on $backend\n";
        }
    }
}

my %edits;    # file → start → [length, code, [index, broken]...]
my %sources;
my @wrong;
for my $index (1 .. @mutants) {
    my ($name, $op, $backend, $pass, $file, $text) = @{ $mutants[$index - 1] }{qw(name op backend pass file text)};
    die "$list: $name: no such op: $op\n" unless grep { $_ eq $op } @ops;
    my ($before, $code, $broken, $after) = ($text // '') =~ /^(.*)⟦(.*) → (.*)⟧(.*)$/s
        or die "$list: $name has no ⟦code → broken⟧\n";
    my $source = $sources{$file} //= slurp("$tree/$file");
    my ($b, $c, $a) = map { regex($_) } $before, $code, $after;
    my $found = 0;
    while ($source =~ /$b($c)$a/g) {
        my $edit = $edits{$file}{ $-[1] } //= [$+[1] - $-[1], $1];
        die "$list: $name overlaps another mutant\n" if $edit->[0] != $+[1] - $-[1];
        push @$edit, [$index, $broken];
        pos($source) = $-[0] + 1;
        $found++;
    }
    push @wrong, "$list: $name: its code occurs $found times in $file, not once\n" if $found != 1;
    my ($level) = $backend =~ /:(\w+)/;
    print join(' ', $index, $name, $op, $level // '-', $backend, $pass), "\n" if $name =~ /(?:$pattern)/;
}

die @wrong if @wrong;

for my $file (keys %edits) {
    my ($source, $limit) = ($sources{$file}, length $sources{$file});
    for my $start (sort { $b <=> $a } keys %{ $edits{$file} }) {
        my ($length, $code, @broken) = @{ $edits{$file}{$start} };
        die "$list: mutants in $file overlap\n" if $start + $length > $limit;
        $limit = $start;
        my $choice = join '', map { "if crate::mutant($_->[0]) { $_->[1] } else " } @broken;
        substr($source, $start, $length) = "($choice\{ $code })";
    }
    open my $out, '>', "$tree/$file" or die "$tree/$file: $!\n";
    print $out $source;
    close $out or die "$tree/$file: $!\n";
}

open my $lib, '>>', "$tree/src/lib.rs" or die "src/lib.rs: $!\n";
print $lib <<'RUST';

/// Whether mutant `id` is the one to run.
pub(crate) fn mutant(id: u32) -> bool {
    static WANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let wanted = || std::env::var("HANDGRAD_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0);
    *WANTED.get_or_init(wanted) == id
}
RUST
close $lib or die "src/lib.rs: $!\n";
