/*
 * Imports the scored tiles of all images of a project into QuPath (0.5 or newer).
 *
 * For research use. Not for diagnosis.
 *
 * Open the project and this script (Automate > Script editor), run it, and choose the folder of results. Without windows:
 *     QuPath script -p project.qpproj -a FOLDER import_tiles.groovy
 *
 * The image "a.svs" gets the tiles of "a.geojson.gz", "a.svs.geojson.gz", "a.tiles.geojson.gz" or "a/tiles.geojson.gz",
 * compressed or not, in that folder or any below it. Scored tiles of an earlier import are replaced; annotations, cells
 * and all other objects stay.
 */
import java.util.zip.GZIPInputStream
import qupath.fx.dialogs.FileChoosers
import qupath.lib.io.PathIO

def RANK = 'Attention rank'

def project = getProject()
if (project == null) {
    println 'There is no project. Open one first.'
    return
}
def folder = args ? new File(args[0]) : FileChoosers.promptForDirectory('Folder of results', null)
if (folder == null || !folder.isDirectory()) {
    println 'No folder of results was chosen.'
    return
}

def filesByName = [:].withDefault { [] }
folder.eachFileRecurse { file ->
    def matcher = file.name =~ /(?i)^(.+?)(\.tiles)?\.geojson(\.gz)?$/
    if (file.isFile() && matcher.matches() && !matcher.group(1).toLowerCase().endsWith('.tissue')) {
        def name = matcher.group(1)
        filesByName[name.equalsIgnoreCase('tiles') ? file.parentFile.name : name] << file
    }
}

def openEntry = getProjectEntry()
def left = []
def count = 0
project.getImageList().each { entry ->
    def name = entry.getImageName()
    def stem = name.replaceFirst(/\.[^.\s]+$/, '')
    def files = [name, stem].unique().collectMany { filesByName.containsKey(it) ? filesByName[it] : [] }
    if (files.size() != 1) {
        left << (files.isEmpty() ? name : name + ' (which of ' + files.join(', ') + '?)')
        return
    }
    def tiles = files[0].withInputStream { stream ->
        def isCompressed = files[0].name.toLowerCase().endsWith('.gz')
        PathIO.readObjectsFromGeoJSON(isCompressed ? new GZIPInputStream(stream) : stream)
    }
    def imageData = entry == openEntry ? getCurrentImageData() : entry.readImageData()
    def hierarchy = imageData.getHierarchy()
    def earlier = hierarchy.getDetectionObjects().findAll { it.getMeasurements().containsKey(RANK) }
    hierarchy.removeObjects(earlier, true)
    hierarchy.addObjects(tiles)
    entry.saveImageData(imageData)
    println name + ': ' + tiles.size() + ' tiles'
    count++
}
println count + ' of ' + project.getImageList().size() + ' images got their tiles. For research use. Not for diagnosis.'
if (left)
    println 'Not imported: ' + left.join('; ')
