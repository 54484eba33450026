import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.SecurityUtils;

/**
 * Runs commands with Kafka's Java client.
 *
 * Each line on standard input is a JSON object with an "id" and a "command". Its response is a line on standard output with
 * the same "id" and either a "result" or an "error". Commands run concurrently. Bytes are in hex.
 * The program ends at the end of its input.
 */
public final class Interop {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration LIMIT = Duration.ofSeconds(60);

    private final String bootstrap;
    private final Admin admin;

    private Interop(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        Interop interop = new Interop(args[0]);
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode command = JSON.readTree(line);
            threads.execute(() -> {
                ObjectNode answer = JSON.createObjectNode();
                answer.set("id", command.get("id"));
                try {
                    answer.set("result", interop.run(command));
                } catch (Throwable problem) {
                    Throwable cause = problem instanceof ExecutionException ? problem.getCause() : problem;
                    answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
                }
                synchronized (out) {
                    out.println(answer);
                    out.flush();
                }
            });
        }
        System.exit(0);
    }

    private JsonNode run(JsonNode command) throws Exception {
        switch (command.get("command").asText()) {
            case "produce":
                return produce(command);
            case "consume":
                return consume(command);
            case "offset":
                return offset(command);
            case "topics":
                return JSON.valueToTree(admin.listTopics().names().get());
            case "createTopic":
                return createTopic(command);
            case "deleteTopic":
                admin.deleteTopics(List.of(command.get("topic").asText())).all().get();
                return JSON.nullNode();
            case "deleteRecords":
                admin.deleteRecords(Map.of(partition(command), RecordsToDelete.beforeOffset(command.get("before").asLong())))
                    .all().get();
                return JSON.nullNode();
            case "abortTransaction":
                // Without a coordinator, its epoch is unknown and the first one is accepted.
                admin.abortTransaction(new AbortTransactionSpec(partition(command), command.get("producerId").asLong(),
                    (short) command.get("producerEpoch").asInt(), 0)).all().get();
                return JSON.nullNode();
            case "quota":
                return quota(command);
            case "moveLeader":
                return moveLeader(command);
            case "grant":
                return grant(command);
            case "revokeAll":
                return revokeAll(command);
            default:
                throw new IllegalArgumentException("no such command: " + command.get("command"));
        }
    }

    /**
     * Appends "records" in order and waits for all of them at the end. Without "partition", each goes to that of its key.
     * With "transaction" (commit or abort), they are one transaction that ends that way; the config has a transactional.id
     * then.
     */
    private JsonNode produce(JsonNode command) throws Exception {
        Properties config = config(command);
        config.putIfAbsent("acks", "all");
        config.put("compression.type", command.path("compression").asText("none"));
        ArrayNode acks = JSON.createArrayNode();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            String transaction = command.path("transaction").asText("");
            if (!transaction.isEmpty()) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            Integer partition = command.hasNonNull("partition") ? command.get("partition").asInt() : null;
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : command.get("records")) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode header : record.path("headers")) {
                    headers.add(new RecordHeader(header.get("key").asText(), bytes(header.get("value"))));
                }
                Long timestamp = record.hasNonNull("timestamp") ? record.get("timestamp").asLong() : null;
                sent.add(producer.send(new ProducerRecord<>(command.get("topic").asText(), partition,
                    timestamp, bytes(record.get("key")), bytes(record.get("value")), headers)));
            }
            producer.flush();
            for (Future<RecordMetadata> each : sent) {
                acks.add(each.get().offset());
            }
            if (transaction.equals("commit")) {
                producer.commitTransaction();
            } else if (transaction.equals("abort")) {
                producer.abortTransaction();
            }
        }
        return acks;
    }

    /** Reads a partition from "from" to before "to"; without "to", to its end at the time of the call. */
    private JsonNode consume(JsonNode command) {
        TopicPartition partition = partition(command);
        ArrayNode records = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(config(command), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, command.get("from").asLong());
            long end = command.hasNonNull("to")
                ? command.get("to").asLong()
                : consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("still at " + consumer.position(partition) + " of " + end);
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() < end) {
                        records.add(describe(record));
                    }
                }
            }
        }
        return records;
    }

    private static ObjectNode describe(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = JSON.createObjectNode();
        node.put("offset", record.offset());
        node.put("timestamp", record.timestamp());
        node.put("key", hex(record.key()));
        node.put("value", hex(record.value()));
        ArrayNode headers = node.putArray("headers");
        for (Header header : record.headers()) {
            headers.addObject().put("key", header.key()).put("value", hex(header.value()));
        }
        return node;
    }

    /** Looks up an offset, or -1. "at" is earliest, latest, max-timestamp, or milliseconds. */
    private JsonNode offset(JsonNode command) throws Exception {
        String at = command.get("at").asText();
        OffsetSpec spec;
        switch (at) {
            case "earliest":
                spec = OffsetSpec.earliest();
                break;
            case "latest":
                spec = OffsetSpec.latest();
                break;
            case "max-timestamp":
                spec = OffsetSpec.maxTimestamp();
                break;
            default:
                spec = OffsetSpec.forTimestamp(Long.parseLong(at));
        }
        return JSON.getNodeFactory().numberNode(
            admin.listOffsets(Map.of(partition(command), spec)).partitionResult(partition(command)).get().offset());
    }

    private JsonNode createTopic(JsonNode command) throws Exception {
        Map<String, String> configs = new HashMap<>();
        command.path("configs").properties().forEach(each -> configs.put(each.getKey(), each.getValue().asText()));
        NewTopic topic = new NewTopic(command.get("topic").asText(), Optional.of(command.get("partitions").asInt()),
            command.hasNonNull("replicationFactor")
                ? Optional.of((short) command.get("replicationFactor").asInt())
                : Optional.empty());
        admin.createTopics(List.of(topic.configs(configs))).all().get();
        return JSON.nullNode();
    }

    /** Sets quotas of a client id; a null value removes the quota. */
    private JsonNode quota(JsonNode command) throws Exception {
        ClientQuotaEntity entity =
            new ClientQuotaEntity(Collections.singletonMap(ClientQuotaEntity.CLIENT_ID, command.get("clientId").asText()));
        List<ClientQuotaAlteration.Op> ops = new ArrayList<>();
        command.get("quotas").properties().forEach(each -> ops.add(
            new ClientQuotaAlteration.Op(each.getKey(), each.getValue().isNull() ? null : each.getValue().asDouble())));
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, ops))).all().get();
        return JSON.nullNode();
    }

    /**
     * Grants "rights" to a user, all at once: each is an operation, a type of resource, its name, and whether that is LITERAL,
     * which it is by default, or PREFIXED.
     */
    private JsonNode grant(JsonNode command) throws Exception {
        List<AclBinding> bindings = new ArrayList<>();
        for (JsonNode right : command.get("rights")) {
            AclOperation operation = SecurityUtils.operation(right.get(0).asText());
            ResourceType type = SecurityUtils.resourceType(right.get(1).asText());
            PatternType pattern = PatternType.valueOf(right.path(3).asText("LITERAL"));
            bindings.add(new AclBinding(new ResourcePattern(type, right.get(2).asText(), pattern),
                new AccessControlEntry(principal(command), "*", operation, AclPermissionType.ALLOW)));
        }
        admin.createAcls(bindings).all().get();
        return JSON.nullNode();
    }

    private JsonNode revokeAll(JsonNode command) throws Exception {
        AccessControlEntryFilter entries =
            new AccessControlEntryFilter(principal(command), null, AclOperation.ANY, AclPermissionType.ANY);
        admin.deleteAcls(List.of(new AclBindingFilter(ResourcePatternFilter.ANY, entries))).all().get();
        return JSON.nullNode();
    }

    private static String principal(JsonNode command) {
        return "User:" + command.get("user").asText();
    }

    /** Reassigns a partition to "replicas" and makes the first one the leader. All brokers must be alive. */
    private JsonNode moveLeader(JsonNode command) throws Exception {
        TopicPartition partition = partition(command);
        List<Integer> replicas = new ArrayList<>();
        command.get("replicas").forEach(replica -> replicas.add(replica.asInt()));
        admin.alterPartitionReassignments(Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
        long deadline = System.nanoTime() + LIMIT.toNanos();
        while (true) {
            try {
                admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).all().get();
            } catch (ExecutionException e) {
                // Also thrown during the reassignment. The loop checks the leader.
                if (!(e.getCause() instanceof ApiException)) {
                    throw e;
                }
            }
            TopicPartitionInfo info = admin.describeTopics(List.of(partition.topic())).allTopicNames().get()
                .get(partition.topic()).partitions().get(partition.partition());
            if (info.leader() != null && info.leader().id() == replicas.get(0)) {
                return JSON.nullNode();
            }
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("the leader is still " + info.leader());
            }
        }
    }

    private Properties config(JsonNode command) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        command.path("config").properties().forEach(each -> config.put(each.getKey(), each.getValue().asText()));
        return config;
    }

    private static TopicPartition partition(JsonNode command) {
        return new TopicPartition(command.get("topic").asText(), command.get("partition").asInt());
    }

    private static byte[] bytes(JsonNode hex) {
        return hex == null || hex.isNull() ? null : HexFormat.of().parseHex(hex.asText());
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? null : HexFormat.of().formatHex(bytes);
    }
}
