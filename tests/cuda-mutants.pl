#!/usr/bin/env perl
# cuda-mutants.pl LIST KERNELS WORK [PATTERN]: for each mutant of LIST whose name matches PATTERN, the files of KERNELS with
# its change in the folder WORK/INDEX, and on standard output a line "INDEX NAME TEST MODULE".
#
# Fails where a listed text does not occur exactly once, or where a module lacks a mutant.
use strict;
use warnings;
use File::Basename;
use File::Copy;

my ($list, $kernels, $work, $pattern) = @ARGV;

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

my (@mutants, %names, %modules, @wrong);
for my $line (split /\n/, slurp($list)) {
    next if $line =~ /^\s*(#|$)/;
    if ($line =~ /^\s+(.*)$/) {
        die "$list: a line of code before the first mutant\n" unless @mutants;
        my $text = \$mutants[-1]{text};
        $$text = defined $$text ? "$$text\n$1" : $1;
        next;
    }
    my ($name, $test, $module, $file, @more) = split ' ', $line;
    die "$list: expected NAME TEST MODULE FILE: $line\n" unless defined $file && !@more;
    die "$list: two mutants are called $name\n" if $names{$name}++;
    $modules{$module}++;
    push @mutants, { name => $name, test => $test, module => $module, file => $file };
}
for my $source (glob "$kernels/*.cu") {
    my $module = basename($source, '.cu');
    push @wrong, "$list: no mutant of $module\n" unless $modules{$module};
}

for my $index (1 .. @mutants) {
    my ($name, $test, $module, $file, $text) = @{ $mutants[$index - 1] }{qw(name test module file text)};
    my ($before, $code, $broken, $after) = ($text // '') =~ /^(.*)⟦(.*) → (.*)⟧(.*)$/s
        or die "$list: $name has no ⟦code → broken⟧\n";
    my $source = slurp("$kernels/$file");
    my ($b, $c, $a) = map { regex($_) } $before, $code, $after;
    my $found = () = $source =~ /$b$c$a/g;
    push @wrong, "$list: $name: its code occurs $found times in $file, not once\n" if $found != 1;
    next if $found != 1 || $name !~ /(?:$pattern)/;
    $source =~ s/($b)$c($a)/$1$broken$2/;
    my $folder = "$work/$index";
    mkdir $folder or die "$folder: $!\n";
    copy($_, $folder) or die "$_: $!\n" for glob "$kernels/*.cu $kernels/*.cuh";
    open my $out, '>', "$folder/$file" or die "$folder/$file: $!\n";
    print $out $source;
    close $out or die "$folder/$file: $!\n";
    print "$index $name $test $module\n";
}
die @wrong if @wrong;
