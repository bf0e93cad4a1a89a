# Scores of SpamAssassin for the mails whose paths come on standard input: path, tab, score. Local rules and Bayes only.
use strict;
use warnings;
use Mail::SpamAssassin;

my ($preferences) = @ARGV;
my $assassin = Mail::SpamAssassin->new({
    local_tests_only   => 1,
    userprefs_filename => $preferences,
    dont_copy_prefs    => 1,
});
$assassin->init(1);
$| = 1;
while (my $path = <STDIN>) {
    chomp $path;
    open(my $file, '<:raw', $path) or die "$path: $!";
    local $/ = undef;
    my $mail = $assassin->parse(<$file>);
    close($file);
    local $/ = "\n";
    my $status = $assassin->check($mail);
    printf "%s\t%.3f\n", $path, $status->get_score();
    $status->finish();
    $mail->finish();
}
$assassin->finish();
