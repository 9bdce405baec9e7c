// The table of verbs: the one place where a verb or an option is spelled. docs/cli.md says what
// they do at length.
#include "cli.h"

namespace smolvm {
namespace {

constexpr Option kName[] = {
    {"-n,--name", Takes::kText, "NAME", "the machine's name (default: default)"}};
constexpr Option kLongName[] = {
    {"--name", Takes::kText, "NAME", "the machine's name (default: default)"}};
constexpr Option kJson[] = {{"--json", Takes::kFlag, "", "as JSON"}};

constexpr Option kImage[] = {
    {"-I,--image", Takes::kText, "REF|FILE|DIR|-",
     "image: a registry reference, an archive (docker save, OCI), an OCI or root file system "
     "directory, - for an archive on standard input"},
    {"--oci-platform", Takes::kText, "OS/ARCH", "platform of the image (linux/amd64)"},
    {"--pull", Takes::kText, "WHEN", "missing, always or never (missing)"},
    {"--rootfs", Takes::kText, "DIR|FILE",
     "root file system: a directory (copied into guest memory) or a file system image (read-only, "
     "writes go elsewhere)"},
    {"--from", Takes::kText, "FILE", "capsule or .smolmachine that the machine is made of"},
    {"-s,--smolfile", Takes::kText, "FILE", "what a Smolfile says; the other options win over it"},
    {"--entrypoint", Takes::kText, "PATH", "program instead of the image's entry point"},
};
constexpr Option kResources[] = {
    {"--cpus", Takes::kNumber, "N", "number of CPUs (1)"},
    {"--mem", Takes::kNumber, "MIB", "memory in MiB (256)"},
    {"--storage", Takes::kNumber, "GIB", "a second disk of that size, at /storage in the guest"},
    {"--overlay", Takes::kNumber, "GIB", "size of the disk that takes the writes to the root (10)"},
    {"--memory-max", Takes::kNumber, "MIB",
     "the host gives the whole machine no more memory than that (cgroup memory.max)"},
    {"--cpu-max", Takes::kNumber, "PERCENT",
     "nor more than so much of one CPU, 150 is one and a half (cpu.max)"},
    {"--pids-max", Takes::kNumber, "N", "nor more threads (pids.max)"},
    {"--gpu", Takes::kRefused, "", ""},
};
constexpr Option kProgram[] = {
    {"-e,--env", Takes::kTexts, "K=V", "environment entry; K alone copies it from here"},
    {"-w,--workdir", Takes::kText, "DIR", "working directory"},
    {"--user", Takes::kText, "USER", "uid, uid:gid, name or name:group"},
};
constexpr Option kSecrets[] = {
    {"--secret-env", Takes::kTexts, "G=H",
     "give the host's variable H to programs as G; kept out of records and command lines"},
    {"--secret-file", Takes::kTexts, "G=/PATH",
     "give the host's file to the guest as /run/secrets/G"},
};
constexpr Option kMounts[] = {
    {"-v,--volume", Takes::kTexts, "HOST:GUEST[:ro]", "show a directory of the host in the guest"},
    {"--ssh-agent", Takes::kFlag, "", "forward the ssh agent"},
};
constexpr Option kNetwork[] = {
    {"-p,--port", Takes::kTexts, "[ADDR:]HOST:GUEST[/udp]",
     "publish a port of the guest on the host (127.0.0.1)"},
    {"--net", Takes::kFlag, "", "give the machine a network (default: none)"},
    {"--network", Takes::kText, "NAME", "join the network NAME of this user's machines"},
    {"--dns", Takes::kText, "ADDRESS", "name server that the guest's questions go to"},
    {"--allow-cidr", Takes::kTexts, "CIDR[:PORT]",
     "the guest may reach these addresses; all others not named are refused"},
    {"--allow-host", Takes::kTexts, "HOST[:PORT]", "the guest may reach this host by its name"},
    {"--add-host", Takes::kTexts, "NAME:ADDRESS",
     "a name that the guest resolves; host-gateway as the address is this host"},
    {"--host-access", Takes::kText, "on|off",
     "whether 10.0.2.2 and fd00:0:0:2::2 lead to this host's loopback (on)"},
    {"--net-backend", Takes::kRefused, "NAME", ""},
};
constexpr Option kPublishAll[] = {
    {"-P,--publish-all", Takes::kFlag, "",
     "publish all ports that the image exposes on free ports of the host (127.0.0.1)"},
};
constexpr Option kEngine[] = {
    {"--hostname", Takes::kText, "NAME", "the guest's host name"},
    {"--kernel", Takes::kText, "FILE", "kernel instead of our own"},
    {"--append", Takes::kText, "TEXT", "words for the kernel's command line"},
    {"--accel", Takes::kText, "NAME", "auto, kvm or soft"},
    {"--unprivileged", Takes::kRefused, "", ""},
};
constexpr Option kStreams[] = {
    {"-i,--interactive", Takes::kFlag, "", "give the command our standard input"},
    {"-t,--tty", Takes::kFlag, "", "run the command on a terminal"},
    {"-d,--detach", Takes::kFlag, "", "do not wait for the command"},
    {"--timeout", Takes::kText, "30s|500ms|2m|1h",
     "end the command after this time, exit status 124"},
};
constexpr Option kRunOnly[] = {
    {"-n,--name", Takes::kText, "NAME", "with -d: the machine's name"},
    {"--initrd", Takes::kText, "FILE",
     "initial root file system, unpacked over the default image; without a command it is used "
     "alone, on the serial console"},
    {"--stats", Takes::kText, "FILE", "write counters as JSON when the machine ends"},
    {"--boot-time", Takes::kFlag, "", "say on standard error how long boot took"},
    {"--verbose", Takes::kFlag, "", "show the kernel's messages on standard error"},
};
constexpr Option kCreateOnly[] = {
    {"--label", Takes::kTexts, "K=V", "a label of your own"},
    {"--init", Takes::kTexts, "COMMAND", "shell command that runs in the guest after each start"},
    {"--expose-socket", Takes::kTexts, "HOST:GUEST",
     "the guest's Unix socket GUEST is reached at HOST on the host"},
    {"--mount-socket", Takes::kTexts, "HOST:GUEST",
     "the host's Unix socket HOST is reached at GUEST in the guest"},
};
constexpr Option kForce[] = {
    {"-f,--force", Takes::kFlag, "", "also when it runs: end it first"},
    {"--cascade", Takes::kFlag, "", "with all machines that branched from it (none can yet)"}};
constexpr Option kStop[] = {
    {"-f,--force", Takes::kFlag, "", "do not wait for the guest"},
    {"--timeout", Takes::kText, "10s", "time that the guest has to end by itself (10s)"}};
constexpr Option kStreamOutput[] = {
    {"--stream", Takes::kFlag, "", "pass output on as it comes (always so)"}};
constexpr Option kVerbose[] = {{"-v,--verbose", Takes::kFlag, "", "more about each machine"}};
constexpr Option kUpdate[] = {
    {"-v,--volume", Takes::kTexts, "HOST:GUEST[:ro]", "add a volume"},
    {"--remove-volume", Takes::kTexts, "GUEST", "take the volume at GUEST (or of HOST) away"},
    {"-p,--port", Takes::kTexts, "HOST:GUEST", "publish a port"},
    {"--remove-port", Takes::kTexts, "HOST[:GUEST]", "take a published port away"},
    {"--cpus", Takes::kNumber, "N", "number of CPUs"},
    {"--mem", Takes::kNumber, "MIB", "memory in MiB"},
    {"--memory-max", Takes::kNumber, "MIB", "the host's limit of its memory; 0: none"},
    {"--cpu-max", Takes::kNumber, "PERCENT", "the host's limit of its CPU time; 0: none"},
    {"--pids-max", Takes::kNumber, "N", "the host's limit of its threads; 0: none"},
    {"--net", Takes::kFlag, "", "give it a network"},
    {"--no-net", Takes::kFlag, "", "take its network and published ports away"},
    {"--add-host", Takes::kTexts, "NAME:ADDRESS", "add a name that the guest resolves"},
    {"--remove-host", Takes::kTexts, "NAME[:ADDRESS]", "take an added name away"},
    {"--host-access", Takes::kText, "on|off", "whether it reaches this host's loopback"},
    {"-e,--env", Takes::kTexts, "K=V", "set an environment entry"},
    {"--remove-env", Takes::kTexts, "K", "take an environment entry away"},
    {"-w,--workdir", Takes::kText, "DIR", "working directory"},
    {"--storage", Takes::kNumber, "GIB", "make the second disk that large (it only grows)"},
    {"--overlay", Takes::kNumber, "GIB", "make the root's disk that large (it only grows)"},
};
constexpr Option kCopy[] = {
    {"--mode", Takes::kText, "OCTAL", "permissions of what is copied"},
    {"--uid", Takes::kNumber, "N", "owner of what is copied"},
    {"--gid", Takes::kNumber, "N", "group of what is copied"},
};
constexpr Option kPrune[] = {
    {"--dry-run", Takes::kFlag, "", "only say what would go"},
    {"--all", Takes::kFlag, "", "also every stopped machine, and images that no machine uses"}};
constexpr Option kMonitor[] = {
    {"--restart", Takes::kText, "POLICY", "never, on-failure or always (on-failure)"},
    {"--health-cmd", Takes::kText, "COMMAND", "shell command in the guest; 0 means healthy"},
    {"--health-timeout", Takes::kText, "5s", "time that the health command has (5s)"},
    {"--interval", Takes::kText, "10s", "time between two checks (10s)"},
    {"--health-retries", Takes::kNumber, "N",
     "failed checks after which the machine is restarted (3)"},
};
constexpr Option kLogs[] = {
    {"-f,--follow", Takes::kFlag, "", "go on as lines come"},
    {"--monitor", Takes::kFlag, "", "the monitor's own log instead of the guest's console"}};
constexpr Option kTrust[] = {{"--key", Takes::kTexts, "KEY|FILE",
                              "the file must be signed by this public key (or another --key)"}};
constexpr Option kExport[] = {{"--export-index", Takes::kText, "FILE",
                               "write the signed index to FILE and its signature to FILE.minisig"}};
constexpr Option kPasswordFile[] = {
    {"--password-file", Takes::kText, "FILE", "the secret key's password, instead of asking"}};
constexpr Option kKeygen[] = {
    {"-p,--public", Takes::kText, "FILE", "where the public key goes (smolvm.pub)"},
    {"-s,--secret", Takes::kText, "FILE", "where the secret key goes (smolvm.key)"},
    {"-W,--no-password", Takes::kFlag, "", "do not protect the secret key"},
};
constexpr Option kSign[] = {
    {"-s,--secret", Takes::kText, "FILE", "secret key (smolvm.key)"},
    {"-o,--output", Takes::kText, "FILE", "a signed copy, instead of signing the file itself"},
    {"-c,--comment", Takes::kText, "TEXT", "a comment that the signature covers"},
};
constexpr Option kPushFile[] = {{"-f,--file", Takes::kText, "FILE", "the machine file or capsule"}};
constexpr Option kPullFile[] = {
    {"-o,--output", Takes::kText, "FILE", "where it goes (NAME.smolmachine, by the reference)"}};
constexpr Option kFollow[] = {{"-f,--follow", Takes::kFlag, "", "go on as events come"}};

constexpr Option kPlatform[] = {
    {"--oci-platform", Takes::kText, "OS/ARCH[/VARIANT]", "platform of the image (linux/amd64)"}};
constexpr Option kPullPolicy[] = {
    {"--pull", Takes::kText, "WHEN", "missing, always or never (always)"}};
constexpr Option kPackCreate[] = {
    {"-o,--output", Takes::kText, "FILE",
     "what to write; a name that ends in .smolmachine is a machine file, any other an executable"},
    {"--single-file", Takes::kFlag, "", "an executable, whatever its name"},
    {"--split", Takes::kFlag, "",
     "leave kernel and init out; smolvm finds them by their digests in a shared folder"},
    {"-n,--name", Takes::kText, "NAME", "the packed machine's name (of the file)"},
    {"--label", Takes::kTexts, "K=V", "a label of your own"},
};
constexpr Option kSignKey[] = {
    {"--sign-key", Takes::kText, "FILE",
     "sign with this minisign secret key (its password: $SMOLVM_KEY_PASSWORD)"}};
constexpr Option kPackFrom[] = {
    {"--from", Takes::kText, "FILE", "capsule or .smolmachine"},
    {"-n,--name", Takes::kText, "NAME", "with -d: the machine's name"},
    {"--entrypoint", Takes::kText, "PATH", "program instead of the packed entry point"},
    {"-P,--publish-all", Takes::kFlag, "", "publish the packed exposed ports on free ones"},
    {"--verbose", Takes::kFlag, "", "show the kernel's messages on standard error"},
};
constexpr Option kRebase[] = {
    {"--kernel", Takes::kText, "FILE", "kernel instead of the installed one"},
};

constexpr Option kRootfs[] = {
    {"-o,--output", Takes::kText, "OUT", "where it goes: NAME.erofs, NAME.tar, or a directory"},
    {"--busybox", Takes::kFlag, "", "with BusyBox and its commands"},
    {"--add", Takes::kTexts, "HOST:PATH", "with this file or directory of the host, at PATH"},
    {"--tar", Takes::kTexts, "FILE",
     "from an archive or an image's layer: tar, plain, gzip or zstd; - is standard input"},
    {"--dir", Takes::kTexts, "DIR", "from a directory"},
    {"--debootstrap", Takes::kText, "SUITE", "from a Debian suite, by mmdebstrap or debootstrap"},
    {"--mirror", Takes::kText, "URL", "with --debootstrap: where packages come from"},
    {"--include", Takes::kText, "NAMES", "with --debootstrap: more packages, comma separated"},
    {"-v,--verbose", Takes::kFlag, "", "name the libraries"},
};
constexpr Option kBuild[] = {
    {"-s,--smolfile", Takes::kText, "FILE|DIR", "the Smolfile (./Smolfile)"},
    {"-t,--tag", Takes::kText, "NAME", "name of the result instead of the Smolfile's `image`"},
    {"-o,--output", Takes::kText, "FILE",
     "write it to a file, too: FILE.erofs the root file system, else an oci-archive"},
    {"--no-cache", Takes::kFlag, "", "run every step again"},
};

constexpr const char* kStatuses =
    "Exit status: the command's; 128+N for signal N; 124 after a timeout; 125-127 as a shell has "
    "them; 1 for what went wrong before.";

const Verb kVerbs[] = {
    {"machine run",
     "",
     "run a command in a fresh machine",
     Words::kCommand,
     "[--] [COMMAND...]",
     {kStreams, kImage, kResources, kProgram, kMounts, kNetwork, kPublishAll, kSecrets, kEngine,
      kRunOnly},
     run_machine_run,
     kStatuses},
    {"machine create",
     "",
     "create a named machine",
     Words::kMachine,
     "[NAME]",
     {kName, kImage, kResources, kProgram, kMounts, kNetwork, kPublishAll, kSecrets, kEngine,
      kCreateOnly},
     run_machine_create},
    {"machine start",
     "",
     "start a machine",
     Words::kMachine,
     "[NAME]",
     {kName},
     run_machine_start,
     "A machine 'default' that is not there is created from the embedded image."},
    {"machine stop",
     "",
     "stop a machine",
     Words::kMachine,
     "[NAME]",
     {kName, kStop},
     run_machine_stop},
    {"machine delete",
     "rm",
     "delete a machine and its disks",
     Words::kMachine,
     "[NAME]",
     {kName, kForce},
     run_machine_delete},
    {"machine shell",
     "sh",
     "a shell in a running machine",
     Words::kMachine,
     "[NAME]",
     {kName, kProgram},
     run_machine_shell},
    {"machine exec",
     "",
     "run a command in a running machine",
     Words::kMachineCommand,
     "[NAME] [--] COMMAND...",
     {kName, kStreams, kStreamOutput, kProgram, kSecrets},
     run_machine_exec,
     kStatuses},
    {"machine pause",
     "",
     "stop a machine's CPUs",
     Words::kMachine,
     "[NAME]",
     {kName},
     run_machine_pause},
    {"machine resume",
     "",
     "let a paused machine go on",
     Words::kMachine,
     "[NAME]",
     {kName},
     run_machine_resume},
    {"machine status",
     "",
     "whether a machine runs",
     Words::kMachine,
     "[NAME]",
     {kName, kJson},
     run_machine_status,
     "Exit status: 0 when it runs or is paused, 1 when not."},
    {"machine ls", "list", "list machines", Words::kNone, "", {kVerbose, kJson}, run_machine_list},
    {"machine port",
     "",
     "published ports of a machine",
     Words::kMachine,
     "[NAME]",
     {kName, kJson},
     run_machine_port},
    {"machine update",
     "",
     "change a stopped machine",
     Words::kMachine,
     "[NAME]",
     {kName, kUpdate},
     run_machine_update},
    {"machine cp",
     "",
     "copy files into a running machine or out of it",
     Words::kFixed,
     "SRC DST",
     {kCopy},
     run_machine_cp,
     "One side is MACHINE:PATH."},
    {"machine images", "", "list images", Words::kNone, "", {kJson}, run_machine_images},
    {"machine prune",
     "",
     "remove what belongs to no machine",
     Words::kNone,
     "",
     {kPrune, kJson},
     run_machine_prune},
    {"machine monitor",
     "",
     "watch a machine and restart it",
     Words::kMachine,
     "[NAME]",
     {kName, kMonitor},
     run_machine_monitor},
    {"machine egress-events",
     "",
     "connections that the network's policy refused",
     Words::kMachine,
     "[NAME]",
     {kName, kJson, kFollow},
     run_machine_egress_events},
    {"machine data-dir",
     "",
     "where a machine's files are",
     Words::kMachine,
     "[NAME]",
     {kName},
     run_machine_data_dir},
    {"machine logs",
     "",
     "the guest's console",
     Words::kMachine,
     "[NAME]",
     {kName, kLogs},
     run_machine_logs},
    {"machine branch", "fork", "", Words::kMachine, "", {kLongName}, nullptr},
    {"machine checkpoint", "", "", Words::kMachine, "", {kLongName}, nullptr},
    {"machine checkpoint-log", "", "", Words::kMachine, "", {kLongName}, nullptr},
    {"machine checkpoint-prune", "", "", Words::kMachine, "", {kLongName}, nullptr},
    {"pack inspect",
     "",
     "say what a machine file or a capsule holds",
     Words::kFixed,
     "FILE",
     {kJson, kTrust, kExport},
     run_pack_inspect},
    {"pack verify",
     "",
     "check every byte of a machine file or a capsule, and its signature",
     Words::kFixed,
     "FILE",
     {kTrust},
     run_pack_verify,
     "Without --key the keys and the policy of the settings apply ('smolvm config show')."},
    {"pack keygen",
     "",
     "make a pair of keys for signatures, in minisign's format",
     Words::kNone,
     "",
     {kKeygen, kPasswordFile},
     run_pack_keygen},
    {"pack sign",
     "",
     "sign a machine file or a capsule",
     Words::kFixed,
     "FILE",
     {kSign, kPasswordFile},
     run_pack_sign},
    {"pack push",
     "",
     "send a machine file or a capsule to a registry, in chunks that versions share",
     Words::kFixed,
     "REF",
     {kPushFile, kJson},
     run_pack_push,
     "Chunks that the registry has are not sent; after a failure the same command goes on."},
    {"pack pull",
     "",
     "fetch a machine file or a capsule from a registry",
     Words::kFixed,
     "REF",
     {kPullFile, kTrust, kJson},
     run_pack_pull,
     "The signature is checked before anything is fetched, and every byte before the file is "
     "there."},
    {"pack sbom",
     "",
     "print what software a machine file or a capsule holds, as SPDX 2.3 JSON",
     Words::kFixed,
     "FILE",
     {kTrust},
     run_pack_sbom},
    {"config show", "", "print the settings in force", Words::kNone, "", {kJson}, run_config_show},
    {"image pull",
     "",
     "bring an image to this host",
     Words::kFixed,
     "REF|FILE|DIR|-",
     {kPlatform, kPullPolicy, kJson},
     run_image_pull,
     "FILE is a docker-archive or oci-archive, DIR an OCI directory, - an archive on standard "
     "input."},
    {"image ls", "list", "list images", Words::kNone, "", {kJson}, run_image_list},
    {"image rm",
     "",
     "forget an image; machine prune gives its space back",
     Words::kFixed,
     "REF",
     {kPlatform},
     run_image_remove},
    {"config registries",
     "",
     "mirrors, certificates and other rules for registries",
     Words::kFixed,
     "path|show|edit|init",
     {},
     run_config_registries},
    {"pack create",
     "",
     "pack a program, its root file system and a kernel as one file",
     Words::kCommand,
     "[--] [COMMAND...]",
     {kPackCreate, kImage, kResources, kProgram, kMounts, kNetwork, kEngine, kSignKey},
     run_pack_create},
    {"pack run",
     "",
     "run a capsule or a machine file with the installed runtime",
     Words::kCommand,
     "[--] [ARGUMENTS...]",
     {kPackFrom, kTrust, kStreams, kResources, kProgram, kMounts, kNetwork, kEngine},
     run_pack_run,
     kStatuses},
    {"pack rebase",
     "",
     "put the installed kernel, init and runtime under a packed root",
     Words::kFixed,
     "FILE",
     {kRebase, kTrust, kSignKey},
     run_pack_rebase},
    {"rootfs",
     "",
     "make a root file system",
     Words::kSeveral,
     "[PROGRAM[:PATH]...]",
     {kRootfs},
     run_rootfs,
     "Programs bring the libraries that they need. Times later than SOURCE_DATE_EPOCH become it."},
    {"build",
     "",
     "build a Smolfile's image",
     Words::kNone,
     "",
     {kBuild},
     run_build,
     "Prints the image's name and digest. `machine run -I NAME` runs it."},
    {"kernel path",
     "",
     "print a kernel's path: an ELF file with a PVH note",
     Words::kFixed,
     "NAME",
     {},
     run_kernel_path},
    {"doctor",
     "",
     "say what this host offers and what will be used",
     Words::kNone,
     "",
     {kJson},
     run_doctor},
    {"completion",
     "",
     "print a completion script for a shell",
     Words::kFixed,
     "bash|zsh|fish",
     {},
     run_completion},
    {"man", "", "write the man pages into a folder", Words::kFixed, "DIR", {}, run_man},
    {"version", "", "print the version", Words::kNone, "", {}, run_version},
};

constexpr Group kGroups[] = {{"machine", "vm", "machines"},
                             {"image", "images", "container images"},
                             {"pack", "", "machine files and capsules"},
                             {"config", "", "settings"},
                             {"kernel", "", "guest kernels"}};

}  // namespace

std::span<const Verb> verbs() { return kVerbs; }
std::span<const Group> groups() { return kGroups; }

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t at = text.find(separator);
    out.push_back(text.substr(0, at));
    text = at == std::string_view::npos ? "" : text.substr(at + 1);
  }
  return out;
}

std::string_view key_of(const Option& option) {
  std::string_view last = split(option.names, ',').back();
  return last.substr(last.find_first_not_of('-'));
}

std::string Invocation::text(std::string_view key, std::string_view otherwise) const {
  const auto at = values.find(key);
  return at == values.end() || at->second.empty() ? std::string(otherwise) : at->second.back();
}

u64 Invocation::number(std::string_view key, u64 otherwise) const {
  const auto at = values.find(key);
  return at == values.end() || at->second.empty()
             ? otherwise
             : std::strtoull(at->second.back().c_str(), nullptr, 10);
}

const std::vector<std::string>& Invocation::list(std::string_view key) const {
  static const std::vector<std::string> kNothing;
  const auto at = values.find(key);
  return at == values.end() ? kNothing : at->second;
}

Result<std::string> Invocation::machine() const {
  const std::string named = text("name");
  if (!words.empty() && has("name") && words[0] != named)
    return smol::fail("two machines are named: '{}' and '{}'", named, words[0]);
  if (has("name")) return named;
  return words.empty() ? "default" : words[0];
}

}  // namespace smolvm
