import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import kafka.tools.StorageTool;
import org.apache.kafka.common.utils.Time;

/**
 * One real Apache Kafka node, broker and controller: `java KafkaNode PROPERTIES CLUSTER_ID [SCRAM...]`.
 * Its folder is formatted at the first start; it shuts down in order when its standard input ends.
 */
final class KafkaNode {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        try (var reader = Files.newBufferedReader(Path.of(arguments[0]))) {
            properties.load(reader);
        }
        if (!Files.exists(Path.of(properties.getProperty("log.dirs"), "meta.properties"))) {
            List<String> format = new ArrayList<>(List.of("format", "-t", arguments[1], "-c", arguments[0]));
            for (int index = 2; index < arguments.length; index++) {
                format.addAll(List.of("--add-scram", arguments[index]));
            }
            if (StorageTool.execute(format.toArray(new String[0]), System.out) != 0) {
                System.exit(1);
            }
        }
        KafkaRaftServer server = new KafkaRaftServer(KafkaConfig.fromProps(properties), Time.SYSTEM);
        try {
            server.startup();
        } catch (Throwable error) {  // its other threads would live on
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
        System.out.println("started");
        while (System.in.read() >= 0) { }
        server.shutdown();
        server.awaitShutdown();
        System.exit(0);
    }
}
